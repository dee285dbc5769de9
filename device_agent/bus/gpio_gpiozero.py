"""GPIO on gpiozero, the second back end: with the pin factory that the configuration names, never another.

Pins are used below gpiozero's devices, where each edge is one callback. Debouncing and noticing a dead chip
are our own (`gpio_debounce`): the factories mean different things by debouncing, and none reports a chip that
is gone.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from device_agent.bus.config import GpioBusConfig
from device_agent.bus.gpio import Bias, Drive, Edge, GpioBus, InputLine, OutputLine, PwmOutput
from device_agent.bus.gpio_debounce import Debouncer
from device_agent.bus.gpio_descriptors import fd_of_line, line_fds
from device_agent.bus.inbox import Inbox
from device_agent.bus.pwm_sysfs import SysfsPwm
from device_agent.bus.recipe import Recipe
from device_agent.bus.system import denied
from device_agent.errors import BusError, BusGone, BusHeld, PlaceRefused

EDGES_MAX = 4096
# A factory's ticks are used if they are this near to the monotonic clock; some count in other units.
TICKS_NEAR_S = 5.0
_GONE_WORDS = (
    "bad GPIO",
    "bad lineinfo",
    "unexpected error",
    "unknown handle",
    "not permitted for this handle",
)


class GpiozeroGpio(GpioBus):
    """One chip behind one pin factory. Tests pass `factory`, such as gpiozero's MockFactory."""

    def __init__(self, name: str, config: GpioBusConfig, factory: Any = None) -> None:
        self.name = name
        self.config = config
        self.path = config.chip
        self._test_factory = factory
        self._factory: Any = None
        self._lines: dict[int, _GpiozeroLine] = {}
        self._debouncer: Debouncer | None = None

    # -- life ----------------------------------------

    def open(self) -> None:
        self.close()
        with self._mapped("the chip"):
            self._factory = self._test_factory or self._make_factory()
        self._debouncer = Debouncer(f"bus-{self.name}-watch", self._check)

    def close(self) -> None:
        debouncer, self._debouncer = self._debouncer, None
        if debouncer is not None:
            debouncer.stop()
        for line in list(self._lines.values()):
            line.close()
        factory, self._factory = self._factory, None
        if factory is None:
            return
        try:
            factory.close()
        except _foreign():
            # Its pins live in a dictionary of the class: dead ones would be handed out again.
            factory.pins.clear()
            handle = getattr(factory, "_handle", None)
            if handle is not None and "lgpio" in sys.modules:
                # Else the descriptor stays open and lgpio's thread spins on the removed chip
                with suppress(sys.modules["lgpio"].error):
                    sys.modules["lgpio"].gpiochip_close(handle)
                factory._handle = None

    def _make_factory(self) -> Any:
        match self.config.pin_factory:
            case "lgpio":
                return self._lgpio_factory()
            case "rpigpio":
                from gpiozero.pins.rpigpio import RPiGPIOFactory as Factory
            case "pigpio":
                from gpiozero.pins.pigpio import PiGPIOFactory as Factory
            case _:
                from gpiozero.pins.native import NativeFactory as Factory
        return Factory()

    def _lgpio_factory(self) -> Any:
        from device_agent.bus.gpio_gpiod import find_chip

        self.path = find_chip(self.name, self.config.chip)
        if not os.access(self.path, os.R_OK | os.W_OK):
            raise denied(self.path)  # lgpio would say "can not open gpiochip" for this too
        # lgpio makes a FIFO in this folder when imported, and fails in one that cannot be written
        folders = (os.environ.get("LG_WD"), os.environ.get("RUNTIME_DIRECTORY"), tempfile.gettempdir())
        os.environ["LG_WD"] = next(
            (folder for folder in folders if folder and os.access(folder, os.W_OK)), tempfile.gettempdir()
        )
        from gpiozero.pins.lgpio import LGPIOFactory

        return LGPIOFactory(chip=int(os.path.realpath(self.path).removeprefix("/dev/gpiochip")))

    def _check(self) -> None:
        """Raises BusGone when no more edges can come and nothing would report it."""
        lgpio = sys.modules.get("lgpio")
        if self.config.pin_factory != "lgpio" or lgpio is None or self._test_factory is not None:
            return
        if not os.path.exists(self.path):
            raise BusGone(f"bus {self.name}: {self.path} is gone")
        thread = getattr(lgpio, "_notify_thread", None)
        if thread is not None and not thread.is_alive():
            raise BusGone(f"bus {self.name}: lgpio's thread has died; start the agent again")

    # -- lines ----------------------------------------

    def input(
        self,
        line: int | str,
        *,
        active_low: bool = False,
        bias: Bias = "as-is",
        debounce_s: float = 0.0,
        edges: bool = True,
    ) -> InputLine:
        with self._mapped(f"line {line}"):
            before = line_fds()
            pin, debouncer = self._pin(line)
            pin.function = "input"
            if bias != "as-is":
                pin.pull = {"none": "floating", "pull-up": "up", "pull-down": "down"}[bias]
            claimed = GpiozeroInput(self, pin, line, active_low)
            if edges:
                claimed.start(debouncer, debounce_s)
            if self._test_factory is None and self.config.pin_factory == "lgpio":
                claimed.watch = fd_of_line(pin._number, before), debounce_s
        return claimed

    def output(
        self, line: int | str, *, active: bool, active_low: bool = False, drive: Drive = "push-pull"
    ) -> OutputLine:
        with self._mapped(f"line {line}"):
            before = line_fds()
            pin, _ = self._pin(line)
            handle = getattr(self._factory, "_handle", None)
            level = active != active_low
            if self.config.pin_factory == "lgpio" and handle is not None:
                # gpiozero would claim the line low first and set its level afterwards: a relay would click
                lgpio = sys.modules["lgpio"]
                flags = {
                    "push-pull": 0,
                    "open-drain": lgpio.SET_OPEN_DRAIN,
                    "open-source": lgpio.SET_OPEN_SOURCE,
                }
                lgpio.gpio_claim_output(handle, pin._number, int(level), flags[drive])
            elif drive != "push-pull":
                raise PlaceRefused(f"bus {self.name}, line {line}: this pin factory has no drive {drive!r}")
            else:
                pin.output_with_state(level)
            hold = self._hold(pin, before, self.path if drive == "push-pull" else "")
            return GpiozeroOutput(self, pin, line, active_low, hold)

    def pwm(
        self, line: int | str, *, duty: float, frequency_hz: float, active_low: bool = False
    ) -> PwmOutput:
        """By the kernel where the bus's `pwm` table names a channel, else by the pin factory's own thread."""
        channel = self.config.pwm.get(str(line))
        if channel is not None:
            return SysfsPwm(self.name, channel, duty=duty, frequency_hz=frequency_hz, active_low=active_low)
        with self._mapped(f"line {line}"):
            before = line_fds()
            pin, _ = self._pin(line)
            pin.output_with_state((duty > 0) != active_low)
            output = GpiozeroPwm(self, pin, line, active_low, self._hold(pin, before, self.path))
            try:
                output.write(duty, frequency_hz)
            except BusError:
                output.close()
                raise
        return output

    @property
    def sees_holders(self) -> bool:
        return self.config.pin_factory == "lgpio"

    def _hold(self, pin: Any, before: set[int], chip: str) -> "LineHold":
        """What the guard needs to drive the line after this process has ended."""
        number = getattr(pin, "_number", None)
        if self._test_factory is not None or not isinstance(number, int):
            return LineHold("", 0, -1)
        if self.sees_holders:
            fd = fd_of_line(number, before)
            return LineHold(os.path.realpath(chip) if chip and fd >= 0 else "", number, fd)
        # These factories write the chip's registers and hold nothing: the guard claims the line itself.
        from device_agent.bus.gpio_gpiod import find_chip

        return LineHold(os.path.realpath(find_chip(self.name, self.config.chip)), number, -1)

    def _pin(self, line: int | str) -> tuple[Any, Debouncer]:
        if self._factory is None or self._debouncer is None:
            raise BusGone(f"bus {self.name}: {self.path} is not open")
        pin = self._factory.pin(line)
        if id(pin) in self._lines:
            raise BusHeld(f"bus {self.name}: line {line} is held by another device of this agent")
        return pin, self._debouncer

    # -- errors ----------------------------------------

    def _holder(self, what: str) -> str:
        """Who has this line, by the kernel; lgpio does not report it."""
        import gpiod

        try:
            with gpiod.Chip(self.path) as chip:
                consumer = chip.get_line_info(what.removeprefix("line ").removeprefix("GPIO")).consumer
        except (OSError, ValueError):
            consumer = ""
        return f"{consumer!r}; stop it or choose another line" if consumer else "another program"

    @contextmanager
    def _mapped(self, what: str) -> Iterator[None]:
        where = f"bus {self.name} ({self.path}), {what}"
        try:
            yield
        except BusError:
            raise
        except ImportError as error:
            raise BusError(
                f"{where}: pin factory {self.config.pin_factory!r} is not installed: {error}"
            ) from error
        except _foreign() as error:
            from gpiozero import PinError

            text = str(error) or type(error).__name__
            if "GPIO busy" in text:
                raise BusHeld(f"{where}: held by {self._holder(what)}") from error
            if "can not open gpiochip" in text or any(word in text for word in _GONE_WORDS):
                raise BusGone(f"{where}: the GPIO chip is gone ({text})") from error
            if type(error).__name__ == "PinUnknownPi":
                raise BusError(f'{where}: this board is no Raspberry Pi; use `backend = "gpiod"`') from error
            place = isinstance(error, PinError)
            raise (PlaceRefused if place else BusError)(f"{where}: {text}") from error


def _foreign() -> tuple[type[Exception], ...]:
    """What gpiozero and its factories raise; lgpio's error is neither an OSError nor gpiozero's."""
    from gpiozero import GPIOZeroError

    lgpio = sys.modules.get("lgpio")
    return (GPIOZeroError, OSError, RuntimeError, TypeError, *((lgpio.error,) if lgpio else ()))


class _GpiozeroLine:
    def __init__(self, bus: GpiozeroGpio, pin: Any, line: int | str, active_low: bool) -> None:
        self._bus = bus
        self._pin = pin
        self._line = line
        self._active_low = active_low
        bus._lines[id(pin)] = self

    def read(self) -> bool:
        with self._claimed() as pin:
            return bool(pin.state) != self._active_low

    def close(self) -> None:
        pin, self._pin = self._pin, None
        if pin is None:
            return
        self._bus._lines.pop(id(pin), None)
        with suppress(*_foreign()):  # a removed chip cannot be released line by line
            pin.when_changed = None
            pin.close()

    @contextmanager
    def _claimed(self) -> Iterator[Any]:
        with self._bus._mapped(f"line {self._line}"):
            if self._pin is None:
                raise BusGone(f"bus {self._bus.name}: line {self._line} was released")
            self._bus._check()
            yield self._pin


class GpiozeroInput(_GpiozeroLine):
    """A claimed input. Edges come on the library's thread and go through the inbox."""

    def __init__(self, bus: GpiozeroGpio, pin: Any, line: int | str, active_low: bool) -> None:
        super().__init__(bus, pin, line, active_low)
        self._inbox: Inbox[Edge] = Inbox(EDGES_MAX)
        self._take: Callable[[Edge], None] = self._inbox.put
        self._reported_lost = 0
        self.watch = -1, 0.0
        """The line's descriptor, -1 where the library has none or hides it, and `debounce_s`."""

    def start(self, debouncer: Debouncer, debounce_s: float) -> None:
        self._take = debouncer.add(self._inbox, debounce_s, self.read())
        pin = self._pin
        pin.bounce = None
        pin.edges = "both"
        # One exception out of this call would end lgpio's only thread, and gpiozero itself can raise one for
        # an edge that was under way while its line was closed.
        if "_call_when_changed" not in vars(pin):
            pin._call_when_changed = _never_raising(pin._call_when_changed)
        pin.when_changed = self._changed

    def _changed(self, ticks: float, state: int) -> None:
        if state in (0, 1):
            now_s = time.monotonic()
            near = isinstance(ticks, float) and abs(now_s - ticks) < TICKS_NEAR_S
            self._take(Edge(bool(state) != self._active_low, ticks if near else now_s))

    def fileno(self) -> int:
        return self._inbox.fileno()

    def watched(self, active: bool) -> Recipe:
        fd, settles_s = self.watch
        if fd < 0:
            raise BusError(f"bus {self._bus.name}, line {self._line}: the descriptor could not be found")
        return Recipe("level", {"active": active is not self._active_low, "settles_s": settles_s}, os.dup(fd))

    def drain(self) -> Sequence[Edge]:
        edges = self._inbox.drain()
        lost = self._inbox.lost - self._reported_lost
        if not edges or not lost:
            return edges
        self._reported_lost += lost
        first = edges[0]
        return (Edge(first.active, first.monotonic_s, lost), *edges[1:])

    def close(self) -> None:
        pin = self._pin
        super().close()
        if pin is not None:
            debouncer = self._bus._debouncer
            if debouncer is not None:
                debouncer.remove(self._inbox)
            self._inbox.close()


@dataclass(frozen=True, slots=True)
class LineHold:
    """A claimed line's descriptor (-1: none), and the node of a chip on which it can be claimed anew."""

    chip: str
    offset: int
    fd: int

    def recipe(self, level: bool, where: str) -> Recipe:
        """The guard sets this level and goes on driving it. Raises BusError where it cannot."""
        if self.fd >= 0:
            place = {"path": self.chip, "offset": self.offset}
            return Recipe("line", {"active": level, **place}, os.dup(self.fd), hold=True)
        if self.chip:
            return Recipe("claim", {"path": self.chip, "offset": self.offset, "active": level}, hold=True)
        raise BusError(f"{where}: the descriptor of the line could not be found, so the guard cannot hold it")


class _Driven(_GpiozeroLine):
    def __init__(
        self, bus: GpiozeroGpio, pin: Any, line: int | str, active_low: bool, hold: LineHold
    ) -> None:
        super().__init__(bus, pin, line, active_low)
        self._hold = hold

    def recipe(self, active: bool) -> Recipe:
        return self._hold.recipe(active != self._active_low, f"bus {self._bus.name}, line {self._line}")


class GpiozeroOutput(_Driven):
    """A claimed output."""

    def write(self, active: bool) -> None:
        with self._claimed() as pin:
            pin.state = active != self._active_low

    def fileno(self) -> int:
        if self._hold.fd < 0:
            raise BusError(f"bus {self._bus.name}, line {self._line}: this pin factory holds no descriptor")
        return self._hold.fd


class GpiozeroPwm(_Driven):
    """A claimed output that the pin factory switches, in software on most of them."""

    def write(self, duty: float, frequency_hz: float) -> None:
        with self._claimed() as pin:
            if pin.frequency != frequency_hz:
                pin.frequency = frequency_hz
            pin.state = 1 - duty if self._active_low else duty

    def read(self) -> tuple[float, float]:  # type: ignore[override]
        with self._claimed() as pin:
            return (1 - pin.state if self._active_low else pin.state), pin.frequency

    def recipes(self, duty: float, frequency_hz: float) -> list[Recipe]:
        """Pulses made in software end with this process: fully on stays on, everything else is off.

        `check` refuses a safe duty in between, and warns where it is a position.
        """
        return [self.recipe(duty >= 1)]


def _never_raising(call: Callable[..., None]) -> Callable[..., None]:
    def guarded(*args: Any) -> None:
        with suppress(Exception):
            call(*args)

    return guarded
