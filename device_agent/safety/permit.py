"""Whether something may move now: an ordered list of guards, asked twice.

Once when a command is admitted, and again on the bus's thread right before the driver is called: in between
it may have waited for its device or its bus, and what was allowed then may be forbidden by now.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

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
    made_safe: int | None = None
    """How often commands had made the device safe when it came; None for what nothing overtakes."""
    makes_safe: bool = False
    """It sets nothing but safe values."""


class MotionGuard(NamedTuple):
    """One reason why nothing may move: `check` raises Rejected, on any thread."""

    name: str
    check: Callable[[Motion], None]
    at_admission: bool = True
    for_reads: bool = False
    """Whether actions that only read are asked about, too."""


class Standstill:
    """The daemon stood still, and the guard process has made actuators safe, or may have.

    Nobody knows then what state they are in, until each was made safe again.
    """

    def __init__(self, clock: Clock, timeout_s: float) -> None:
        """`timeout_s`: after so long without a beat the guard process acts."""
        self._clock = clock
        self._timeout_s = timeout_s
        self._beat_s = inf  # without a guard process, nobody acts
        self._unknown: set[str] = set()
        self._on_motion: list[Callable[[], None]] = []

    def before_motions(self, call: Callable[[], None]) -> None:
        """Have this called before each motion, on the bus's thread."""
        self._on_motion.append(call)

    def moves(self) -> None:
        """Something is about to move; on any thread."""
        for call in self._on_motion:
            call()

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
        """Raises Rejected; on any thread."""
        unknown = motion.device in self._unknown or self.silent_s() > self._timeout_s
        if motion.is_actuator and unknown:
            raise Rejected(
                "too_soon",
                f"the agent stood still and its guard took over: {motion.device} is made safe first, "
                "ask again in a second",
            )


class MotionPermit:
    """`guards` are in the order in which they are asked; the first that refuses is what the caller sees.

    What they depend on changes on the event loop.
    """

    def __init__(self, clock: Clock, check_latch: Callable[[], None], guard_timeout_s: float) -> None:
        """`check_latch` raises Rejected while the emergency stop forbids motion."""
        self.standstill = Standstill(clock, guard_timeout_s)
        self._clock = clock
        self._check_latch = check_latch
        self._ended_sessions: dict[str, None] = {}
        self._made_safe: Counter[str] = Counter()
        self._changing: set[str] = set()
        self._stopping = False
        self.unreached: dict[str, str] = {}
        """The devices that did not obey when they were to be made safe, and why; they are tried again."""
        self.guards = (
            # Asked on the bus's thread alone: while the event loop stands still, it admits nothing.
            MotionGuard("daemon stood still", self.standstill.check, at_admission=False, for_reads=True),
            MotionGuard("session ended", self.check_session, for_reads=True),
            MotionGuard("emergency stop", lambda _: self._check_latch()),
            MotionGuard("configuration changing", self._check_configuration),
            MotionGuard("agent stopping", self._check_agent),
            MotionGuard("not safe yet", self._check_safe_was_reached),
            MotionGuard("expired", self.check_deadline),
            MotionGuard("overtaken", self.check_overtaken),
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
        if motion.is_actuator and not motion.read_only:
            self.standstill.moves()

    # -- what guards depend on ----------------------------------------

    def end_session(self, holder: str) -> None:
        """What this session has sent moves nothing any more."""
        self._ended_sessions[holder] = None
        if len(self._ended_sessions) > ENDED_MAX:
            self._ended_sessions.pop(next(iter(self._ended_sessions)))

    def begin_change(self, devices: Iterable[str]) -> None:
        """The configuration of these devices changes: they stay safe until `end_change`."""
        self._changing.update(devices)

    def end_change(self, device: str) -> None:
        """The name stands for a new device, or for none: what was true of the old one is over."""
        self._changing.discard(device)
        self.unreached.pop(device, None)

    def overtake(self, device: str) -> None:
        """A command makes the device safe: what came before it moves nothing any more."""
        self._made_safe[device] += 1

    def times_made_safe(self, device: str) -> int:
        """How often a command has made it safe, for `Motion.made_safe`."""
        return self._made_safe[device]

    def stop(self) -> None:
        """The agent makes everything safe for the last time: nothing may move after that."""
        self._stopping = True

    # -- guards ----------------------------------------

    def has_ended(self, holder: str) -> bool:
        """Whether this session has ended."""
        return holder in self._ended_sessions

    def check_session(self, motion: Motion) -> None:
        if self.has_ended(motion.holder):
            raise Rejected("not_allowed", "the session that sent this has ended")

    def _check_configuration(self, motion: Motion) -> None:
        if motion.device in self._changing:
            raise Rejected(
                "device_offline", f"the configuration of {motion.device} changes now: it stays safe"
            )

    def _check_agent(self, motion: Motion) -> None:
        if self._stopping:
            raise Rejected("device_offline", "the agent is stopping: everything is safe and stays so")

    def _check_safe_was_reached(self, motion: Motion) -> None:
        # The next try would undo it; who makes it safe by a command is welcome.
        if not motion.makes_safe and (why := self.unreached.get(motion.device)):
            raise Rejected(
                "too_soon",
                f"{motion.device} is to be made safe first and does not obey ({why}): it is tried again at "
                "least every second",
            )

    def check_deadline(self, motion: Motion) -> None:
        late_ms = (self._clock.monotonic_s() - motion.deadline_s) * 1000
        if late_ms > 0:
            raise Rejected(
                "expired", f"came {late_ms:.0f} ms after its ttl_ms of {motion.ttl_ms} had run out"
            )

    def check_overtaken(self, motion: Motion) -> None:
        if motion.made_safe not in (None, self._made_safe[motion.device]):
            raise Rejected("expired", f"a later command, to make {motion.device} safe, has overtaken it")
