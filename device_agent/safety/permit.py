"""Whether something may move now: an ordered list of guards, asked twice.

Once when a command is admitted, and again on the bus's thread right before the driver is called: in between
it may have waited for its device or its bus, and what was allowed then may be forbidden by now.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf
from typing import ClassVar

from device_agent.clock import Clock
from device_agent.errors import Rejected

# Sessions that ended a moment ago and may still have commands under way.
ENDED_MAX = 1000


@dataclass(frozen=True, slots=True)
class Motion:
    """What asks to move. The agent's own steps after a command have no holder, and never expire."""

    device: str
    holder: str = ""
    deadline_s: float = inf
    """Monotonic; `ttl_ms` is what it was made of."""
    ttl_ms: int = 0
    is_actuator: bool = True
    read_only: bool = False
    """An action that gets something and moves nothing."""


class Guard(ABC):
    """One reason why nothing may move. Its state changes on the event loop; `check` runs on any thread."""

    name: ClassVar[str]
    at_admission: ClassVar[bool] = True
    for_reads: ClassVar[bool] = False
    """Whether actions that only read are asked about, too."""

    def __repr__(self) -> str:
        return f"<Guard {self.name}>"

    @abstractmethod
    def check(self, motion: Motion) -> None:
        """Raises Rejected."""


class Standstill(Guard):
    """The daemon stood still, and the guard process has made actuators safe, or may have.

    Nobody knows then what state they are in, until each was made safe again. Asked only before the write:
    what stood still is the event loop, and it could not have asked.
    """

    name = "daemon stood still"
    at_admission = False
    for_reads = True

    def __init__(self, clock: Clock, timeout_s: float) -> None:
        """`timeout_s`: after so long without a beat the guard process acts."""
        self._clock = clock
        self._timeout_s = timeout_s
        self._beat_s = inf  # without a guard process, nobody acts
        self._unknown: set[str] = set()

    def silent_s(self) -> float:
        """Seconds since the last beat."""
        return self._clock.monotonic_s() - self._beat_s

    def beat(self) -> None:
        """The event loop runs."""
        self._beat_s = self._clock.monotonic_s()

    def begin(self, devices: Iterable[str]) -> None:
        """The guard has acted, or may have: the state of its devices is unknown."""
        # In this order, for `check` runs on another thread.
        self._unknown = set(devices)
        self.beat()

    def end(self, device: str) -> None:
        """The device is known to be safe."""
        self._unknown.discard(device)

    def stop(self) -> None:
        """Nothing beats any more."""
        self._beat_s = inf
        self._unknown.clear()

    def check(self, motion: Motion) -> None:
        unknown = motion.device in self._unknown or self.silent_s() > self._timeout_s
        if motion.is_actuator and unknown:
            raise Rejected(
                "too_soon",
                f"the agent stood still and its guard took over: {motion.device} is made safe first, "
                "ask again in a second",
            )


class EndedSessions(Guard):
    """The session that sent it has ended; what it drove goes to safe."""

    name = "session ended"
    for_reads = True

    def __init__(self) -> None:
        self._ended: dict[str, None] = {}

    def add(self, holder: str) -> None:
        self._ended[holder] = None
        if len(self._ended) > ENDED_MAX:
            self._ended.pop(next(iter(self._ended)))

    def check(self, motion: Motion) -> None:
        if motion.holder in self._ended:
            raise Rejected("not_allowed", "the session that sent this has ended")


class StopPressed(Guard):
    """The emergency stop is pressed, or its line cannot be read."""

    name = "emergency stop"

    def __init__(self, check_latch: Callable[[], None]) -> None:
        self._check_latch = check_latch

    def check(self, motion: Motion) -> None:
        self._check_latch()


class ChangingDevices(Guard):
    """The device's configuration changes, and it stays safe until that is done."""

    name = "configuration changing"

    def __init__(self) -> None:
        self._changing: set[str] = set()

    def begin(self, devices: Iterable[str]) -> None:
        self._changing.update(devices)

    def end(self, device: str) -> None:
        self._changing.discard(device)

    def check(self, motion: Motion) -> None:
        if motion.device in self._changing:
            raise Rejected(
                "device_offline", f"the configuration of {motion.device} changes now: it stays safe"
            )


class AgentStopping(Guard):
    """The agent makes everything safe for the last time: nothing that still waits may move after that."""

    name = "agent stopping"

    def __init__(self) -> None:
        self._begun = False

    def begin(self) -> None:
        self._begun = True

    def check(self, motion: Motion) -> None:
        if self._begun:
            raise Rejected("device_offline", "the agent is stopping: everything is safe and stays so")


class Expiry(Guard):
    """The command is older than its caller allows (`ttl_ms`)."""

    name = "expired"

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def check(self, motion: Motion) -> None:
        late_ms = (self._clock.monotonic_s() - motion.deadline_s) * 1000
        if late_ms > 0:
            raise Rejected(
                "expired", f"came {late_ms:.0f} ms after its ttl_ms of {motion.ttl_ms} had run out"
            )


class MotionPermit:
    """The guards in the order in which they are asked; the first that refuses is what the caller sees."""

    def __init__(self, clock: Clock, check_latch: Callable[[], None], guard_timeout_s: float) -> None:
        """`check_latch` raises Rejected while the emergency stop forbids motion."""
        self.standstill = Standstill(clock, guard_timeout_s)
        self.ended_sessions = EndedSessions()
        self.changing = ChangingDevices()
        self.stopping = AgentStopping()
        self.expiry = Expiry(clock)
        self.guards: tuple[Guard, ...] = (
            self.standstill,
            self.ended_sessions,
            StopPressed(check_latch),
            self.changing,
            self.stopping,
            self.expiry,
        )

    def admit(self, motion: Motion) -> None:
        """Before a command is let in. Raises Rejected."""
        for guard in self.guards:
            if guard.at_admission and (guard.for_reads or not motion.read_only):
                guard.check(motion)

    def confirm(self, motion: Motion) -> None:
        """On the bus's thread, right before the driver is called. Raises Rejected."""
        for guard in self.guards:
            if guard.for_reads or not motion.read_only:
                guard.check(motion)
