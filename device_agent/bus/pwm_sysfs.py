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
# What the kernel's drivers say of a polarity that their hardware does not have; 524: its ENOTSUPP.
_CANNOT = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, 524}


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
        self._complement = False
        """Whether the kernel's duty is the time off: the channel does not invert."""
        with self._mapped():
            self._export()
            self._open = True
            running = self._text("enable") == "1"
            if running and self._text("polarity") == "inversed" and not active_low:
                self._write("enable", 0)  # what is not driven is low, so off
                running = False
            self._complement = running and active_low and self._text("polarity") == "normal"
            if self._complement:  # its polarity could be changed only while it is off, which is low, so on
                present_ns = int(self._text("period"))
                self._write("duty_cycle", round(present_ns * (1 - duty)))
        try:
            if not running:
                self._prepare(duty, frequency_hz, "inversed" if active_low else "normal")
            self.write(duty, frequency_hz)
            with self._mapped():
                self._write("enable", 1)
        except BusError:
            if not running:  # else it stays at this duty
                self.close()
            raise

    def _prepare(self, duty: float, frequency_hz: float, polarity: str) -> None:
        """Set the polarity of a channel that does not run. The kernel takes it only with a period."""
        self.write(duty, frequency_hz)
        try:
            self._write("polarity", polarity)
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
        self._complement = self._text("polarity") != polarity

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
        """In between it is never on for a larger share than before and after."""
        period_ns, on_ns = self._ns(duty, frequency_hz)
        with self._mapped(f"{frequency_hz:g} Hz"):
            present_ns = int(self._text("period"))
            if self._complement and period_ns != present_ns and self._text("enable") == "1":
                raise PlaceRefused(
                    f"{self._where}: the channel runs without inversion, so another frequency than its "
                    f"{NS / present_ns:g} Hz would switch an active-low output on for a moment: keep that "
                    f"one, or free the channel (echo {self._number} > {self._chip}/unexport) where its "
                    "hardware can invert"
                )
            # The kernel refuses a period below the present duty, and a duty above the present period.
            if period_ns < present_ns:
                self._write("duty_cycle", on_ns)
                self._write("period", period_ns)
            else:
                self._write("period", period_ns)
                self._write("duty_cycle", on_ns)

    def read(self) -> tuple[float, float]:
        with self._mapped():
            period_ns, on_ns = int(self._text("period")), int(self._text("duty_cycle"))
            share = on_ns / period_ns if period_ns else 0.0
            return 1 - share if self._complement else share, NS / period_ns if period_ns else 0.0

    def _ns(self, duty: float, frequency_hz: float) -> tuple[int, int]:
        """Period, and how much of it the kernel is told."""
        period_ns = round(NS / frequency_hz)
        return period_ns, round(period_ns * (1 - duty if self._complement else duty))

    def recipes(self, duty: float, frequency_hz: float) -> list[Recipe]:
        """Off, so that the kernel takes any period, then period and duty: it never passes on. A channel that
        does not invert has kept its period. It then goes on without a holder.
        """
        period_ns, on_ns = self._ns(duty, frequency_hz)
        writes = [("duty_cycle", on_ns)]
        if not self._complement:
            writes = [("duty_cycle", 0), ("period", period_ns), *writes]
        with self._mapped():
            return [
                Recipe(
                    "bytes",
                    {"steps": [b"%d" % value], "answer": b"", "path": str(self._files / name)},
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

    def _write(self, name: str, value: int | str) -> None:
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
