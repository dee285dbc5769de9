"""Hardware PWM through the kernel's files, /sys/class/pwm: exact, and no work for the processor."""

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from device_agent.bus.recipe import Recipe
from device_agent.bus.system import denied, listed
from device_agent.errors import BusError, BusHeld, PlaceRefused

ROOT = Path("/sys/class/pwm")
# A channel's files appear at once, but belong to our group only when udev has handled them.
EXPORT_LIMIT_S = 1.0
POLL_S = 0.01
NS = 1_000_000_000
_GONE = {errno.ENODEV, errno.ENOENT, errno.ENXIO}


def find_pwm_chip(name: str, root: Path = ROOT) -> Path:
    """The folder of a chip by its number or its device; the numbers change between kernels."""
    found = [path for path in _chips(root) if pwm_device(path) == name]
    return found[0] if len(found) == 1 else root / name


def pwm_device(chip: Path) -> str:
    """The device of a chip's folder, such as "1f00098000.pwm"."""
    return Path(os.path.realpath(chip / "device")).name


def _chips(root: Path) -> list[Path]:
    return sorted(root.glob("pwmchip*"))


class SysfsPwm:
    """One channel, such as "1f00098000.pwm/2" or "pwmchip0/0"; a `PwmOutput`.

    The hardware goes on when this process ends: safe values have to be set before.
    """

    def __init__(
        self,
        bus: str,
        channel: str,
        *,
        duty: float,
        frequency_hz: float,
        active_low: bool = False,
        root: Path = ROOT,
    ) -> None:
        """Raises BusHeld, BusDenied, PlaceRefused (no such chip, a frequency it cannot make), BusError.

        A chip that is gone is no loss of the GPIO chip, whose bus this is.
        """
        chip, _, number = channel.partition("/")
        self._where = f"bus {bus}, {channel}"
        self._chip = find_pwm_chip(chip, root)
        self._number = number
        self._files = self._chip / f"pwm{number}"
        self._active_low = active_low
        self._open = False
        with self._mapped():
            self._export()
            self._open = True
            # A running channel's polarity cannot be changed, and an earlier program may have inverted it.
            if self._text("polarity") == "inversed":
                self._write("enable", 0)
                (self._files / "polarity").write_text("normal")
        try:
            self.write(duty, frequency_hz)
            with self._mapped():
                self._write("enable", 1)
        except BusError:
            self.close()
            raise

    def _export(self) -> None:
        if not self._chip.is_dir():
            chips = [f"{path.name} ({pwm_device(path)})" for path in _chips(self._chip.parent)]
            there = listed(chips, "there is no PWM chip: enable its overlay or driver")
            raise PlaceRefused(f"{self._where}: {self._chip.name} is not there; {there}")
        if not self._files.is_dir():
            (self._chip / "export").write_text(self._number)
        deadline_s = time.monotonic() + EXPORT_LIMIT_S
        while not os.access(self._files / "duty_cycle", os.W_OK):
            if time.monotonic() > deadline_s:
                raise denied(str(self._files / "duty_cycle"))
            time.sleep(POLL_S)

    def write(self, duty: float, frequency_hz: float) -> None:
        period_ns, on_ns = self._ns(duty, frequency_hz)
        with self._mapped(f"{frequency_hz:g} Hz"):
            # The kernel refuses a period below the present duty, and a duty above the present period.
            if period_ns < int(self._text("period")):
                self._write("duty_cycle", on_ns)
                self._write("period", period_ns)
            else:
                self._write("period", period_ns)
                self._write("duty_cycle", on_ns)

    def read(self) -> tuple[float, float]:
        with self._mapped():
            period_ns, on_ns = int(self._text("period")), int(self._text("duty_cycle"))
            share = on_ns / period_ns if period_ns else 0.0
            return 1 - share if self._active_low else share, NS / period_ns if period_ns else 0.0

    def _ns(self, duty: float, frequency_hz: float) -> tuple[int, int]:
        """Period, and how much of it the line is high."""
        period_ns = round(NS / frequency_hz)
        return period_ns, round(period_ns * (1 - duty if self._active_low else duty))

    def recipes(self, duty: float, frequency_hz: float) -> list[Recipe]:
        """The safe duty, and once more after the period: the kernel refuses one above the present period.

        Nothing else is written in between, which an inverted actuator would take for on. The channel then
        goes on without a holder.
        """
        period_ns, on_ns = self._ns(duty, frequency_hz)
        writes = [("duty_cycle", on_ns), ("period", period_ns), ("duty_cycle", on_ns)]
        with self._mapped():
            return [
                Recipe(
                    "bytes",
                    {"steps": [b"%d" % value], "answer": b""},
                    os.open(self._files / name, os.O_WRONLY | os.O_CLOEXEC),
                )
                for name, value in writes
            ]

    def close(self) -> None:
        if self._open:
            self._open = False
            with suppress(OSError):  # a chip that is gone has taken its channels along
                (self._chip / "unexport").write_text(self._number)

    def _text(self, name: str) -> str:
        if not self._open:
            raise PlaceRefused(f"{self._where} was released")
        return (self._files / name).read_text(encoding="ascii").strip()

    def _write(self, name: str, value: int) -> None:
        if not self._open:
            raise PlaceRefused(f"{self._where} was released")
        (self._files / name).write_text(str(value))

    @contextmanager
    def _mapped(self, wish: str = "") -> Iterator[None]:
        try:
            yield
        except BusError:
            raise
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM):
                raise denied(str(error.filename or self._files)) from error
            if error.errno == errno.EBUSY:
                raise BusHeld(
                    f"{self._where}: the channel is used by a kernel driver or another program"
                ) from error
            if error.errno in _GONE:
                raise PlaceRefused(f"{self._where}: the channel is gone") from error
            if error.errno in (errno.EINVAL, errno.ERANGE) and wish:
                raise PlaceRefused(f"{self._where}: the hardware cannot make {wish}") from error
            raise BusError(f"{self._where}: {error.strerror or error}") from error
