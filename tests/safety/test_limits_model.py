"""Limits, interlocks and leases against a model that knows only the history: who set what when.

The machine drives three devices of two interlock groups as the keeper would, one of them only while a lid is
closed; it lets time pass, opens the lid, loses devices, ends the process and the boot. What the rules allow
must be what the history allows, and nothing less.
"""

import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from device_agent.driver import ActuatorConfig
from device_agent.errors import Interlocked, Rejected
from device_agent.records import Reading
from device_agent.safety.conditions import Conditions
from device_agent.safety.leases import Leases
from device_agent.safety.limits import HOUR_S, Interlocks, Limits
from device_agent.store.journal import safe_transitions
from device_agent.store.row_checksums import prepare

MAX_ON_S, MIN_OFF_S, CYCLES, IDLE_S = 600.0, 30.0, 4, 60.0
GROUPS = {"up": ["motor"], "down": ["motor", "power"], "heat": ["power"]}
HEAT, LID = "heat", "lid"
DEVICES = st.sampled_from(sorted(GROUPS))
HOLDERS = st.sampled_from(["alice", "bob", "local"])


@dataclass
class Known:
    """What conditions look at of a device."""

    name: str
    config: ActuatorConfig
    online: bool = True
    latest: Reading | None = None


@dataclass
class Past:
    """What really happened to one device, in real time since the first boot."""

    left: list[float] = field(default_factory=list)
    back: list[float] = field(default_factory=list)
    away: bool = False
    lost: bool = False


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.db = sqlite3.connect(":memory:")
        prepare(self.db, safe_transitions.SCHEMA, {})
        self.boots, self.booted_s, self.now_s = 1, 0.0, 0.0
        self.pasts = {name: Past() for name in GROUPS}
        self.lease: dict[str, tuple[str, float]] = {}
        # Where a reboot hid how long something was, refusing longer than needed is right.
        self.hidden_until_s = 0.0
        self.closed: bool | None = None
        """Whether the lid is known to be closed; None while it cannot be read."""
        self._process()

    def teardown(self) -> None:
        self.db.close()

    # -- the rules at work ----------------------------------------------------------------------------------

    @property
    def clock_s(self) -> float:
        return self.now_s - self.booted_s

    def _process(self) -> None:
        interlocks = Interlocks()
        self.leases = Leases(IDLE_S)
        self.limits = {
            name: Limits(
                name,
                ActuatorConfig(
                    safe=False,
                    max_on_s=MAX_ON_S,
                    min_off_s=MIN_OFF_S,
                    max_cycles_per_hour=CYCLES,
                    interlock=groups,
                ),
                {"on": False},
                interlocks,
                self.clock_s,
            )
            for name, groups in GROUPS.items()
        }
        for one in safe_transitions.load(self.db, str(self.boots)):
            self.limits[one.device].recall([one])
        wanted = {name: {LID: {"closed": True}} if name == HEAT else {} for name in GROUPS}
        self.known = {
            name: Known(name, ActuatorConfig(safe=False, only_while=wanted[name])) for name in GROUPS
        }
        self.known[LID] = Known(LID, ActuatorConfig(safe=False))
        self.conditions = Conditions(self.known)  # type: ignore[arg-type]
        for device in self.known.values():
            self.conditions.adopt(device)  # type: ignore[arg-type]
        # Nothing is known of the lid until it is read.
        self.closed = None

    def _watch(self, names: Iterable[str]) -> None:
        for name in names:
            if self.limits[name].away and not self.pasts[name].lost:
                try:
                    self.conditions.check(name)
                except Interlocked:
                    self._applied(name, False)

    def _note(self, made: list[safe_transitions.SafeTransition]) -> None:
        with self.db:
            for one in made:
                self.db.execute(*safe_transitions.note_sql(str(self.boots), one))

    def _applied(self, name: str, on: bool) -> None:
        made = self.limits[name].applied({"on": on}, self.clock_s)
        self._note(made)
        past = self.pasts[name]
        if on is not past.away:
            (past.left if on else past.back).append(self.now_s)
        past.away = on

    def _refusal(self, name: str, on: bool, holder: str) -> Rejected | None:
        try:
            self.leases.check(name, holder, self.clock_s)
            self.limits[name].check({"on": on}, self.clock_s)
            if self.limits[name].leaves_safe({"on": on}):
                self.conditions.check(name)
        except Rejected as refusal:
            return refusal
        return None

    def _allowed(self, name: str, holder: str) -> bool:
        """By the history alone."""
        past = self.pasts[name]
        partners = [other for other in GROUPS if other != name and set(GROUPS[other]) & set(GROUPS[name])]
        lease = self.lease.get(name)
        if lease is not None and lease[0] != holder and self.now_s - lease[1] < IDLE_S:
            return False
        if any(self.pasts[other].away for other in partners):
            return False
        if name == HEAT and self.closed is not True:
            return False
        if past.away:
            return True
        rested = not past.back or self.now_s - past.back[-1] >= MIN_OFF_S
        return rested and len([at for at in past.left if at > self.now_s - HOUR_S]) < CYCLES

    # -- what happens ---------------------------------------------------------------------------------------

    @rule(name=DEVICES, on=st.booleans(), holder=HOLDERS)
    def command(self, name: str, on: bool, holder: str) -> None:
        if self.pasts[name].lost:
            return
        refusal = self._refusal(name, on, holder)
        if refusal is not None:
            assert refusal.code in ("leased", "interlocked", "too_soon")
            assert on or refusal.code == "leased", "back to safe is always allowed to who holds the lease"
            allowed = self._allowed(name, holder)
            assert not allowed or self.now_s < self.hidden_until_s, f"refused for nothing: {refusal}"
            return
        assert not on or self._allowed(name, holder), f"{name} was let go by {holder}"
        self.limits[name].claim({"on": on})
        self._applied(name, on)
        self.leases.take(name, holder, holder, self.clock_s)
        self.lease[name] = (holder, self.now_s)

    @rule(name=DEVICES)
    def fails_in_doubt(self, name: str) -> None:
        """A command came out as unknown: it may have left safe, and is made safe."""
        past = self.pasts[name]
        if not past.lost:
            self._note(self.limits[name].mark_unknown(self.clock_s))
            if not past.away:
                past.left.append(self.now_s)
                past.away = True
            assert self.limits[name].away
            self._applied(name, False)

    @rule(name=DEVICES)
    def claimed_and_never_begun(self, name: str) -> None:
        self.limits[name].claim({"on": True})
        self.limits[name].settle()

    @rule(holder=HOLDERS)
    def session_ends(self, holder: str) -> None:
        for name in self.leases.release(holder):
            self.lease.pop(name, None)
            if not self.pasts[name].lost:
                self._applied(name, False)

    @rule(seconds=st.sampled_from([1.0, 10.0, 29.0, 30.0, 59.0, 61.0, 300.0, 1000.0, 3599.0]))
    def time_passes(self, seconds: float) -> None:
        """The keeper's timers fire at their own instants."""
        end_s = self.now_s + seconds
        while True:
            due = [
                (deadline + self.booted_s, name)
                for name, limits in self.limits.items()
                if (deadline := limits.deadline_s()) is not None and not self.pasts[name].lost
            ]
            first_s, name = min(due, default=(end_s + 1, ""))
            if first_s > end_s:
                break
            self.now_s = max(self.now_s, first_s)
            self._applied(name, False)
        self.now_s = end_s

    @rule(closed=st.sampled_from([True, True, False, None]))
    def lid_is_read(self, closed: bool | None) -> None:
        lid = self.known[LID]
        self.closed, lid.online = closed, True
        lid.latest = Reading(LID, 0, {"closed": closed})
        self._watch(self.conditions.depend_on(LID))

    @rule()
    def lid_is_lost(self) -> None:
        self.closed, self.known[LID].online = None, False
        self._watch(self.conditions.depend_on(LID))

    @rule(name=DEVICES)
    def device_is_lost(self, name: str) -> None:
        self.pasts[name].lost = True

    @precondition(lambda self: any(past.lost for past in self.pasts.values()))
    @rule()
    def devices_come_back(self) -> None:
        """Opening makes safe."""
        for name, past in self.pasts.items():
            if past.lost:
                past.lost = False
                self._applied(name, False)

    @rule(down_s=st.sampled_from([0.1, 20.0, 100.0]), opened=st.booleans())
    def process_is_killed(self, down_s: float, opened: bool) -> None:
        self.now_s += down_s
        self.lease.clear()
        self._process()
        self._opened(opened)

    @rule(down_s=st.sampled_from([20.0, 100.0, 5000.0]), opened=st.booleans())
    def board_is_rebooted(self, down_s: float, opened: bool) -> None:
        self.now_s += down_s
        self.booted_s, self.boots = self.now_s, self.boots + 1
        self.hidden_until_s = self.now_s + HOUR_S
        self.lease.clear()
        self._process()
        self._opened(opened)

    def _opened(self, opened: bool) -> None:
        for name, past in self.pasts.items():
            past.lost = not opened
            if opened:
                self._applied(name, False)

    @rule()
    def trimmed(self) -> None:
        safe_transitions.trim(self.db, str(self.boots), self.clock_s)

    # -- what must always hold ------------------------------------------------------------------------------

    @invariant()
    def never_both(self) -> None:
        for group in {group for groups in GROUPS.values() for group in groups}:
            assert sum(self.pasts[name].away for name, groups in GROUPS.items() if group in groups) <= 1

    @invariant()
    def never_longer_than_max_on_s(self) -> None:
        for past in self.pasts.values():
            if past.away and not past.lost:
                assert self.now_s - past.left[-1] <= MAX_ON_S

    @invariant()
    def only_while_the_lid_is_closed(self) -> None:
        past = self.pasts[HEAT]
        assert not past.away or past.lost or self.closed is True

    @invariant()
    def the_rules_know_what_is_away(self) -> None:
        for name, past in self.pasts.items():
            assert self.limits[name].away is past.away


Machine.TestCase.settings = settings(
    max_examples=int(os.environ.get("DEVICE_AGENT_EXAMPLES", "150")), stateful_step_count=60, deadline=None
)
TestLimits = Machine.TestCase


def test_an_instant_of_an_earlier_boot_is_this_boots_first() -> None:
    with closing(sqlite3.connect(":memory:")) as db:
        prepare(db, safe_transitions.SCHEMA, {})
        for boot, at_s, away in (("one", 90_000.0, True), ("two", 5.0, False)):
            one = safe_transitions.SafeTransition("valve", "on", at_s, away)
            db.execute(*safe_transitions.note_sql(boot, one))
        assert safe_transitions.load(db, "two") == [
            safe_transitions.SafeTransition("valve", "on", 0.0, True),
            safe_transitions.SafeTransition("valve", "on", 5.0, False),
        ]
        safe_transitions.trim(db, "three", 3599.0)
        assert len(safe_transitions.load(db, "three")) == 2
        safe_transitions.trim(db, "three", 3601.0)
        assert safe_transitions.load(db, "three") == [
            safe_transitions.SafeTransition("valve", "on", 0.0, False)
        ]
