"""The board itself: temperature, load, memory, disk, uptime, and whether its power supply is good.

Everything is read from files of the kernel; a point that this board does not have is null with `no_answer`.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from device_agent.driver import DriverConfig, Flag, Flagged, NoBus, Point, Sensor, Unit, Value
from device_agent.schema import Field

# The Pi firmware's status, bits as documented for get_throttled: those for the present.
UNDER_VOLTAGE = 1 << 0
FREQUENCY_CAPPED = 1 << 1
THROTTLED = 1 << 2
SOFT_TEMPERATURE_LIMIT = 1 << 3
SLOWED = FREQUENCY_CAPPED | THROTTLED | SOFT_TEMPERATURE_LIMIT

# Steps of an eMMC's wear: 1 is up to 10 % used, 11 beyond its life (JESD84-B51, DEVICE_LIFE_TIME_EST).
LIFE_STEP_PERCENT = 10

# Thermal zones by the names that boards give the processor's; the first zone otherwise.
CPU_ZONES = ("cpu-thermal", "cpu_thermal", "soc-thermal", "soc_thermal", "x86_pkg_temp", "bigcore-thermal")


class HostConfig(DriverConfig):
    driver: Literal["host"] = "host"
    disk: str = Field("/", pattern="^/", description="A path on the file system to watch.")
    storage: str | None = Field(
        None,
        pattern="^mmcblk[0-9]+$",
        description="An eMMC whose wear is told too, such as mmcblk0; SD cards do not tell theirs.",
    )


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
    wear = (
        Point(
            "storage_used", Unit.PERCENT, low=0, high=110, description="Share of the eMMC's life, rounded up."
        ),
        Point("storage_failing", type="boolean", description="The eMMC has used most of its spare blocks."),
    )
    default_every_s = 30.0

    @classmethod
    def points_of(cls, config: HostConfig) -> tuple[Point, ...]:
        return cls.points if config.storage is None else (*cls.points, *cls.wear)

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
        if self.config.storage is not None:
            sources |= {"storage_used": self._storage_used, "storage_failing": self._storage_failing}
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
        # "soc" up to the Pi 4, "soc@107c000000" on the Pi 5
        (word,) = (self._root / "sys/devices/platform").glob("soc*/soc*:firmware/get_throttled")
        return int(self._text(word), 16)

    def _storage_used(self) -> float:
        """The worse of the two kinds of its memory."""
        kinds = self._text(f"sys/block/{self.config.storage}/device/life_time").split()
        worst = max(int(kind, 16) for kind in kinds)
        if not 1 <= worst <= 11:
            raise ValueError(f"life_time {worst} is not defined")
        return worst * LIFE_STEP_PERCENT

    def _storage_failing(self) -> bool:
        """1 is normal, 2 has used 80 % of the spare blocks, 3 is urgent; 0 is not defined."""
        found = int(self._text(f"sys/block/{self.config.storage}/device/pre_eol_info"), 16)
        if not 1 <= found <= 3:
            raise ValueError(f"pre_eol_info {found} is not defined")
        return found > 1

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
