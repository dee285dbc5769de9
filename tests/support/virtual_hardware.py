"""The only place that knows how the virtual hardware is driven.

$DEVICE_AGENT_RIG names a module on the path that does: levels on pins, registers of chips, far ends of serial
lines, and taking any of it away. On a machine without one the tests here are skipped.
"""

import importlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from support import waiting

LIMIT_S = 60.0  # the rig's processor is emulated


def until(condition: Callable[[], Any], what: str = "the condition", limit_s: float = LIMIT_S) -> Any:
    return waiting.until(condition, what, limit_s)


class Rig:
    """Verbs of the virtual hardware, as the tests use them."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self.gpio = module.gpio()
        self.i2c = module.i2c("sim")
        """Plain I2C with faults and hot unplug."""
        self.smbus = module.i2c("stub")
        """SMBus transfers only."""

    def make_bme280(self, bus: Any, address: int = 0x76, chip_id: int = 0x60) -> None:
        """Registers of a BME280 that measured 25.08 degrees and 100653 Pa."""
        self._module.bme280(bus, address)
        bus.set(address, 0xD0, [chip_id])

    def thermometer(self, **what: int) -> None:
        """The DS18B20: `millideg`, `badcrc`, `gone`."""
        self._module.w1(**what)

    def far_end(self, port: str) -> Any:
        return self._module.peer(port)

    def port(self, port: str) -> str | None:
        node: str | None = self._module.serial_dev(port)
        return node

    def unplug(self, port: str) -> None:
        self._module.unplug(port)

    def plug(self, port: str) -> None:
        until(lambda: self._plugged(port), f"place for {port}")

    def _plugged(self, port: str) -> bool:
        try:
            self._module.plug(port)
        except RuntimeError:
            return False  # the machine has not yet let go of what was pulled out
        return True


def find_rig() -> Rig:
    """Skips the test where there is none."""
    name = os.environ.get("DEVICE_AGENT_RIG")
    if not name:
        pytest.skip("no virtual hardware: set DEVICE_AGENT_RIG to the module that drives it")
    if not os.path.exists("/dev/gpiochip0"):
        pytest.skip("no /dev/gpiochip0 on this machine")
    return Rig(importlib.import_module(name))


def collected(source: Any, enough: Callable[[list[Any]], Any], limit_s: float = LIMIT_S) -> list[Any]:
    """Drain a source, waiting at its descriptor, until what came is enough."""
    got: list[Any] = []
    poll = select.poll()
    poll.register(source.fileno(), select.POLLIN)
    deadline_s = time.monotonic() + limit_s
    while not enough(got):
        left_s = deadline_s - time.monotonic()
        assert left_s > 0, f"not enough within {limit_s:g} s: {got}"
        poll.poll(left_s * 1000)
        got += source.drain()
    return got


def descriptors() -> dict[str, int]:
    """What this process holds open below /dev, with the number of times."""
    held: dict[str, int] = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue
        if (target.startswith("/dev/") and target != "/dev/null") or target.startswith("anon_inode:gpio"):
            held[target] = held.get(target, 0) + 1
    return held


def as_nobody(program: str) -> str:
    """Run this Python as a user without any right to the devices; what it printed."""
    program = "import os; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n" + program
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    return done.stdout + done.stderr
