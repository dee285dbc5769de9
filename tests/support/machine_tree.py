"""A machine made of files in a folder: a Raspberry Pi with what a test puts on it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from device_agent.bus.i2c import I2cBus
from device_agent.discovery.system import ChipInfo, LineInfo, System
from device_agent.errors import BusError

HEADER = ChipInfo(
    "pinctrl-bcm2711",
    (LineInfo(2, "SDA1", ""), LineInfo(17, "GPIO17", "door-watch"), LineInfo(27, "GPIO27", "")),
)


class Tree:
    """`system` sees what the methods have put below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.buses: dict[str, Callable[[], I2cBus]] = {}
        self.chips: dict[str, ChipInfo] = {}
        self.programs: dict[str, str] = {}
        self.system = System(
            root=root,
            open_i2c=self._open,
            gpio_chip=self._chip,
            run=lambda words: self.programs.get(words[0], ""),
        )
        self.file("/proc/device-tree/model", "Raspberry Pi 4 Model B Rev 1.4\0")

    def _open(self, node: str) -> I2cBus:
        if node not in self.buses:
            raise BusError(f"{node} was not to be opened")
        bus = self.buses[node]()
        bus.open()
        return bus

    def _chip(self, node: str) -> ChipInfo:
        if node not in self.chips:
            raise PermissionError(13, "Permission denied")
        return self.chips[node]

    def file(self, path: str, text: str = "", mode: int = 0o644) -> Path:
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        place.chmod(mode)
        return place

    def link(self, path: str, target: str) -> None:
        """A link to a path of the machine itself."""
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        at = os.path.relpath(self.root / target.lstrip("/"), place.parent)
        place.symlink_to(at if not target.startswith("/dev/") or "/proc/" not in path else target)

    def i2c(self, number: int, adapter: str, open_: Callable[[], I2cBus] | None = None) -> None:
        self.file(f"/dev/i2c-{number}")
        self.file(f"/sys/bus/i2c/devices/i2c-{number}/name", adapter)
        if open_ is not None:
            self.buses[f"/dev/i2c-{number}"] = open_

    def usb_port(self, name: str, place: str, **facts: Any) -> None:
        """A USB adapter with one port; `facts` are idVendor, idProduct, serial, product."""
        usb = f"/sys/devices/platform/usb1/{place}"
        for key, value in facts.items():
            self.file(f"{usb}/{key}", value)
        self.file(f"{usb}/{place}:1.0/{name}/x")
        self.file(f"/sys/class/tty/{name}/type", "")
        self.link(f"/sys/class/tty/{name}/device", f"{usb}/{place}:1.0/{name}")
        self.file(f"/dev/{name}")

    def process(self, number: int, name: str, *opened: str) -> None:
        self.file(f"/proc/{number}/comm", name)
        for index, path in enumerate(opened):
            (self.root / f"proc/{number}/fd").mkdir(parents=True, exist_ok=True)
            (self.root / f"proc/{number}/fd/{index + 3}").symlink_to(path)
