"""The board itself: temperature, load, memory, disk, uptime, and whether its power supply is good.

Everything is read from files of the kernel; a point that this board does not have is null with `no_answer`.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from device_agent.driver import DriverConfig, Flag, Flagged, NoBus, Point, Sensor, Unit, Value

# The Pi's firmware word, bits as in its documentation of get_throttled: those that hold now.
UNDER_VOLTAGE = 1 << 0
FREQUENCY_CAPPED = 1 << 1
THROTTLED = 1 << 2
SOFT_TEMPERATURE_LIMIT = 1 << 3
SLOWED = FREQUENCY_CAPPED | THROTTLED | SOFT_TEMPERATURE_LIMIT

# Thermal zones by the names that boards give the processor's; the first zone otherwise.
CPU_ZONES = ("cpu-thermal", "cpu_thermal", "soc-thermal", "soc_thermal", "x86_pkg_temp", "bigcore-thermal")


class HostConfig(DriverConfig):
    driver: Literal["host"] = "host"
    disk: str = Field("/", pattern="^/", description="A path on the file system to watch.")


class Host(Sensor[HostConfig, NoBus]):
    """Reads nothing but small files. `root` is where /proc and /sys are found."""

    points = (
        Point("cpu_temperature", Unit.CELSIUS, low=-40, high=125, description="Processor."),
        Point("load_1m", Unit.ONE, low=0, description="Mean number of runnable tasks in the last minute."),
        Point("memory_used", Unit.PERCENT, low=0, high=100, description="Memory that is not available."),
        Point("disk_used", Unit.PERCENT, low=0, high=100, description="Of what unprivileged users may fill."),
        Point("uptime", Unit.SECOND, low=0, description="Since the machine started."),
        Point("throttled", type="boolean", description="The firmware slows the processor down now."),
        Point("under_voltage", type="boolean", description="The supply voltage is too low now."),
    )
    default_every_s = 30.0

    def __init__(self, *args: Any, root: Path = Path("/"), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._root = root

    def read(self) -> dict[str, Value | Flagged]:
        sources: dict[str, Callable[[], Value]] = {
            "cpu_temperature": self._cpu_temperature,
            "load_1m": lambda: float(self._text("proc/loadavg").split()[0]),
            "memory_used": self._memory_used,
            "disk_used": self._disk_used,
            "uptime": lambda: float(self._text("proc/uptime").split()[0]),
            "throttled": lambda: bool(self._firmware() & SLOWED),
            "under_voltage": self._under_voltage,
        }
        return {name: _tried(source) for name, source in sources.items()}

    def _text(self, path: str | Path) -> str:
        return (self._root / path).read_text(encoding="ascii", errors="replace").strip()

    def _cpu_temperature(self) -> float:
        zones = sorted((self._root / "sys/class/thermal").glob("thermal_zone*"))
        by_type = {self._text(zone / "type"): zone for zone in reversed(zones)}
        zone = next((by_type[name] for name in CPU_ZONES if name in by_type), zones[0])
        return int(self._text(zone / "temp")) / 1000

    def _memory_used(self) -> float:
        sizes = dict(line.split(":", 1) for line in self._text("proc/meminfo").splitlines() if ":" in line)
        total_kb, available_kb = (int(sizes[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
        return round(100 * (1 - available_kb / total_kb), 2)

    def _disk_used(self) -> float:
        disk = os.statvfs(self._root / self.config.disk.lstrip("/"))
        used = disk.f_blocks - disk.f_bfree
        return round(100 * used / (used + disk.f_bavail), 2)

    def _firmware(self) -> int:
        return int(self._text("sys/devices/platform/soc/soc:firmware/get_throttled"), 16)

    def _under_voltage(self) -> bool:
        for sensor in (self._root / "sys/class/hwmon").glob("hwmon*"):
            if _tried(lambda sensor=sensor: self._text(sensor / "name")) == "rpi_volt":  # type: ignore[misc]
                return self._text(sensor / "in0_lcrit_alarm") == "1"
        return bool(self._firmware() & UNDER_VOLTAGE)


def _tried(source: Callable[[], Value]) -> Value | Flagged:
    """The value, or null with `no_answer` where this board has no such file, or nothing sensible in it."""
    try:
        return source()
    except (OSError, ValueError, LookupError, ZeroDivisionError):
        return Flagged(None, Flag.NO_ANSWER)
