"""GPIO: single lines of one chip. Values are logical: `active_low` is applied here and nowhere above."""

import select
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Protocol

from device_agent.bus.core import Handle, Source
from device_agent.bus.recipe import Recipe
from device_agent.errors import PlaceRefused

Bias = Literal["as-is", "none", "pull-up", "pull-down"]
Drive = Literal["push-pull", "open-drain", "open-source"]


@dataclass(frozen=True, slots=True)
class Edge:
    """A line changed. `monotonic_s` is the kernel's time stamp, `lost` how many edges before it were lost.

    `place` says which line it was, of several that were claimed together.
    """

    active: bool
    monotonic_s: float
    lost: int = 0
    place: int = 0


class InputLine(Source, Protocol):
    """A claimed input; its chunks are Edges."""

    def read(self) -> bool:
        """The logical level now."""

    def watched(self, active: bool) -> Recipe:
        """How the guard sees that the line is at this level. Raises BusError where it cannot."""

    def drain(self) -> Sequence[Edge]: ...


class InputLines(Source, Protocol):
    """Several inputs, claimed together; their edges come in the order of the kernel's time."""

    def levels(self) -> Sequence[bool]:
        """The logical level of each now."""

    def drain(self) -> Sequence[Edge]: ...


class OutputLine(Protocol):
    """A claimed output."""

    def write(self, active: bool) -> None: ...

    def read(self) -> bool:
        """The logical level read back from the chip."""

    def fileno(self) -> int:
        """The descriptor that keeps the line driven while open."""

    def recipe(self, active: bool) -> Recipe:
        """How the guard sets it without the daemon. Raises BusError where it cannot."""

    def close(self) -> None:
        """Release the line; what it does then is up to the hardware's pull."""


class PwmOutput(Protocol):
    """A claimed output that is on for a share of each period."""

    def write(self, duty: float, frequency_hz: float) -> None:
        """`duty` is logical, 0 to 1. Raises BusError for a frequency that cannot be made."""

    def read(self) -> tuple[float, float]:
        """Logical duty and frequency as set, read back where the hardware can be asked."""

    def recipes(self, duty: float, frequency_hz: float) -> list[Recipe]:
        """How the guard sets these, in this order. Raises BusError where it cannot."""

    def close(self) -> None:
        """Release it; the hardware may go on."""


class GpioBus(Handle):
    """What a driver sees of a GPIO chip. `line` is an offset, or a line's name such as "GPIO17".

    Every call raises BusHeld (with the holder's name), BusGone (chip removed), BusDenied or BusError.
    """

    kind: ClassVar[str] = "gpio"

    @property
    def sees_holders(self) -> bool:
        """Whether claiming a line that another process holds is refused."""
        return True

    @abstractmethod
    def input(
        self,
        line: int | str,
        *,
        active_low: bool = False,
        bias: Bias = "as-is",
        debounce_s: float = 0.0,
        edges: bool = True,
    ) -> InputLine:
        """Claim an input. With `debounce_s` a change counts once the new level has held that long."""

    def inputs(
        self, lines: Sequence[int | str], *, active_low: bool = False, bias: Bias = "as-is"
    ) -> InputLines:
        """Claim several inputs, all or none."""
        with ExitStack() as claimed:
            inputs = []
            for line in lines:
                inputs.append(self.input(line, active_low=active_low, bias=bias))
                claimed.callback(inputs[-1].close)
            return SeparateLines(inputs, claimed.pop_all())

    @abstractmethod
    def output(
        self, line: int | str, *, active: bool, active_low: bool = False, drive: Drive = "push-pull"
    ) -> OutputLine:
        """Claim an output at the given logical level, in one step with its direction."""

    def pwm(
        self, line: int | str, *, duty: float, frequency_hz: float, active_low: bool = False
    ) -> PwmOutput:
        """Claim an output that switches by itself, beginning with this duty and frequency."""
        raise PlaceRefused(
            f"line {line} can only be switched on and off here: name its hardware PWM channel in the bus's "
            '`pwm` table, such as pwm = { 18 = "pwmchip0/0" }, or use `backend = "gpiozero"`'
        )


# An edge that comes while other lines are drained may be older than theirs: so often it is looked for again.
DRAINS_MAX = 8


class SeparateLines:
    """Inputs that were claimed one by one, as one source; its descriptor watches theirs."""

    def __init__(self, inputs: Sequence[InputLine], claimed: ExitStack) -> None:
        """`claimed` closes them."""
        self._inputs = inputs
        self._claimed = claimed
        self._epoll = select.epoll()
        claimed.callback(self._epoll.close)
        for line in inputs:
            self._epoll.register(line.fileno(), select.EPOLLIN)

    def levels(self) -> Sequence[bool]:
        return [line.read() for line in self._inputs]

    def fileno(self) -> int:
        return self._epoll.fileno()

    def drain(self) -> Sequence[Edge]:
        edges: list[Edge] = []
        for _ in range(0 if self._epoll.closed else DRAINS_MAX):
            found = [replace(edge, place=n) for n, line in enumerate(self._inputs) for edge in line.drain()]
            if not found:
                break
            edges += found
        return sorted(edges, key=lambda edge: edge.monotonic_s)

    def close(self) -> None:
        self._claimed.close()
