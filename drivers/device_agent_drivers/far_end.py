"""A far end on a serial line: one that opening the port resets, and one that answers late."""

from collections.abc import Generator, Iterable, Iterator, Mapping
from time import monotonic
from typing import Any, TypeVar

from device_agent.driver import Flagged, SerialBus, Value
from device_agent.errors import BusTimeout
from device_agent.schema import Field

CHUNK_BYTES = 4096
# A microcontroller is through its boot loader, and has said so, within this after the port was opened.
READY_LIMIT_S = 8.0
# What it was saying when the port was opened, and it was reset, comes no later.
RESET_S = 2.0
# Nobody answers later than after so many times the limit that is set for an answer.
LATE = 5
OPEN_DELAY = Field(
    0.0,
    ge=0,
    le=8,
    description="Wait after opening: an Arduino that opening resets hears nothing for 2 s.",
)

T = TypeVar("T")


class OwnsPort:
    """A driver whose port nobody shares."""

    @classmethod
    def claims(cls, config: Any) -> tuple[str, ...]:
        return ("port",)


def at_once(steps: Generator[None, None, T]) -> T:
    """All steps, for who shares the line with nobody meanwhile."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


def arrivals(bus: SerialBus, limit_s: float) -> Iterator[tuple[float, bytes]]:
    """What arrives in this time from now on, with the seconds until then; b"" at its end."""
    began_s = monotonic()
    while (left_s := began_s + limit_s - monotonic()) > 0:
        chunk = bus.read(1, left_s) + bus.read(CHUNK_BYTES, 0.0)
        yield monotonic() - began_s, chunk


class Late:
    """Answers have no numbers: after what was not answered in time, one that comes may be its own."""

    def __init__(self, answer_s: float) -> None:
        self._limit_s = LATE * answer_s
        self._until_s = 0.0
        self.question = b""
        """What was not answered in time."""
        self.count = 0
        """Answers that came so."""

    def expect(self, question: bytes = b"") -> None:
        self._until_s, self.question = monotonic() + self._limit_s, question

    @property
    def left_s(self) -> float:
        """How long one may still come."""
        return self._until_s - monotonic()


def confirmed(
    command: str, sent: Mapping[str, Value], answers: Iterable[Mapping[str, Value | Flagged]], late: Late
) -> dict[str, Value]:
    """What the far end says of a command's points: what was sent or, if that never comes, what came last.

    Raises BusTimeout where nothing came, or nothing that could not belong to the command before.
    """
    said: dict[str, Value] | None = None
    for answer in answers:
        if not answer and late.left_s > 0:
            continue
        said = {n: v for n, v in answer.items() if not isinstance(v, Flagged)}
        if len(said) == len(answer) and all(sent[name] == value for name, value in said.items()):
            return said
    if said is None:
        late.expect()
        raise BusTimeout(f"{command!r} was sent, and nothing like `confirm` came: it may have happened")
    return said
