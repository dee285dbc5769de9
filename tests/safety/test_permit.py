"""Whether something may move: each guard, their order, and the two moments at which they are asked."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from device_agent.errors import Rejected
from device_agent.safety.permit import ENDED_MAX, Motion, MotionPermit
from device_agent.testing.clock import SteppedClock

TIMEOUT_S = 1.0


class Latch:
    """The emergency stop's, without its file."""

    pressed = False

    def check(self) -> None:
        if self.pressed:
            raise Rejected("not_allowed", "the emergency stop was pressed")


class Site:
    """A permit and all that it depends on."""

    def __init__(self) -> None:
        self.clock = SteppedClock()
        self.latch = Latch()
        self.permit = MotionPermit(self.clock, self.latch.check, TIMEOUT_S)
        deadline_s = self.clock.monotonic_s() + 5.0
        self.motion = Motion("valve", "task-alice", deadline_s, ttl_ms=5000, made_safe=0)

    def press_stop(self) -> None:
        self.latch.pressed = True

    def stand_still(self) -> None:
        self.permit.standstill.begin(["valve"])

    def end_session(self) -> None:
        self.permit.end_session("task-alice")

    def change_configuration(self) -> None:
        self.permit.begin_change(["valve"])

    def stop_agent(self) -> None:
        self.permit.stop()

    def disobey(self) -> None:
        self.permit.unreached["valve"] = "jammed"

    def let_it_expire(self) -> None:
        self.clock.step(5.25)

    def overtake(self) -> None:
        self.permit.overtake("valve")

    def admission(self, motion: Motion | None = None) -> str:
        return refusal(self.permit.admit, motion or self.motion)

    def write(self, motion: Motion | None = None) -> str:
        return refusal(self.permit.confirm, motion or self.motion)


def refusal(ask: Callable[[Motion], None], motion: Motion) -> str:
    """Code and sentence; empty if it may move."""
    try:
        ask(motion)
    except Rejected as rejected:
        return f"{rejected.code}: {rejected.message}"
    return ""


@pytest.fixture
def site() -> Site:
    return Site()


# In the order in which they are asked: what makes the guard refuse, what the caller sees, and whether it is
# asked at admission, and of actions that only read.
REFUSALS = [
    (
        Site.stand_still,
        "too_soon: the agent stood still and its guard took over: valve is made safe first, ask again in a "
        "second",
        False,
        True,
    ),
    (Site.end_session, "not_allowed: the session that sent this has ended", True, True),
    (Site.press_stop, "not_allowed: the emergency stop was pressed", True, False),
    (
        Site.change_configuration,
        "device_offline: the configuration of valve changes now: it stays safe",
        True,
        False,
    ),
    (
        Site.stop_agent,
        "device_offline: the agent is stopping: everything is safe and stays so",
        True,
        False,
    ),
    (
        Site.disobey,
        "too_soon: valve is to be made safe first and does not obey (jammed): it is tried again at least "
        "every second",
        True,
        False,
    ),
    (Site.let_it_expire, "expired: came 250 ms after its ttl_ms of 5000 had run out", True, False),
    (Site.overtake, "expired: a later command, to make valve safe, has overtaken it", True, False),
]


def test_what_nothing_forbids_may_move(site: Site) -> None:
    assert (site.admission(), site.write()) == ("", "")


@pytest.mark.parametrize(("forbid", "sentence", "at_admission", "for_reads"), REFUSALS)
def test_each_guard_at_both_moments(
    site: Site, forbid: Callable[[Site], None], sentence: str, at_admission: bool, for_reads: bool
) -> None:
    forbid(site)
    assert site.write() == sentence
    assert site.admission() == (sentence if at_admission else "")
    reading = Motion("valve", "task-alice", site.motion.deadline_s, ttl_ms=5000, read_only=True)
    assert site.write(reading) == (sentence if for_reads else "")
    assert site.admission(reading) == (sentence if for_reads and at_admission else "")


def test_what_makes_it_safe_may_move_one_that_did_not_obey(site: Site) -> None:
    site.disobey()
    safe = replace(site.motion, makes_safe=True)
    assert (site.admission(safe), site.write(safe)) == ("", "")


def test_what_was_true_of_a_device_is_over_with_its_configuration(site: Site) -> None:
    site.disobey()
    site.change_configuration()
    site.permit.end_change("valve")
    assert (site.admission(), site.write()) == ("", "")


def test_the_first_guard_that_refuses_is_what_the_caller_sees(site: Site) -> None:
    for forbid, sentence, at_admission, _ in reversed(REFUSALS):
        forbid(site)
        assert site.write() == sentence
        if at_admission:
            assert site.admission() == sentence


def test_there_is_a_case_for_every_guard(site: Site) -> None:
    assert [guard.name for guard in site.permit.guards] == [
        "daemon stood still",
        "session ended",
        "emergency stop",
        "configuration changing",
        "agent stopping",
        "not safe yet",
        "expired",
        "overtaken",
    ]
    assert len(REFUSALS) == len(site.permit.guards)


def test_only_the_device_and_the_session_that_are_meant(site: Site) -> None:
    site.stand_still()
    site.end_session()
    site.change_configuration()
    assert site.write(Motion("heater", "task-bob")) == ""


def test_the_agents_own_steps_never_expire_and_belong_to_no_session(site: Site) -> None:
    site.end_session()
    site.clock.step(1e6)
    assert site.write(Motion("valve")) == ""
    site.press_stop()
    assert site.write(Motion("valve")).startswith("not_allowed")


def test_a_silent_daemon_drives_no_actuator_until_it_beats_again(site: Site) -> None:
    standstill = site.permit.standstill
    site.clock.step(100)
    assert site.write(Motion("valve")) == "", "without a guard process nobody has acted"
    standstill.beat()
    site.clock.step(TIMEOUT_S)
    assert site.write(Motion("valve")) == ""
    site.clock.step(0.01)
    assert standstill.silent_s() == pytest.approx(1.01)
    assert site.write(Motion("valve")).startswith("too_soon")
    assert site.write(Motion("clock", is_actuator=False)) == ""
    standstill.beat()
    assert site.write(Motion("valve")) == ""


def test_after_a_standstill_each_device_waits_until_it_is_safe(site: Site) -> None:
    standstill = site.permit.standstill
    standstill.begin(["valve", "heater"])
    standstill.end("valve")
    assert site.write(Motion("valve")) == ""
    assert site.write(Motion("heater")).startswith("too_soon")
    standstill.stop()
    site.clock.step(100)
    assert site.write(Motion("heater")) == ""


def test_a_changed_device_may_move_again(site: Site) -> None:
    site.permit.begin_change(["valve", "heater"])
    site.permit.end_change("valve")
    assert site.admission() == ""
    assert site.admission(Motion("heater")).startswith("device_offline")


def test_the_deadline_itself_is_in_time(site: Site) -> None:
    site.clock.step(5.0)
    assert site.admission() == ""


def test_the_newest_ended_sessions_are_remembered(site: Site) -> None:
    for number in range(ENDED_MAX + 1):
        site.permit.end_session(f"task-{number}")
    assert site.admission(Motion("valve", "task-0")) == ""
    assert site.admission(Motion("valve", "task-1")).startswith("not_allowed")
    assert site.admission(Motion("valve", f"task-{ENDED_MAX}")).startswith("not_allowed")


def test_a_motion_is_told_before_it_begins_and_a_refusal_or_a_question_is_not(site: Site) -> None:
    told: list[str] = []
    site.permit.standstill.before_motions(lambda: told.append("moves"))
    site.permit.confirm(Motion("valve", read_only=True))
    site.permit.confirm(Motion("door", is_actuator=False))
    assert told == []
    site.permit.confirm(Motion("valve"))
    assert told == ["moves"]
    site.permit.stop()
    with pytest.raises(Rejected):
        site.permit.confirm(Motion("valve"))
    assert told == ["moves"]
