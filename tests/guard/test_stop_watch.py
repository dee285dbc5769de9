"""The guard's look at the stop input: how few turns of its loop there are between contact and safe."""

import select
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from device_agent.guard import stop_watch
from device_agent.guard.bus_workers import GuardAction, GuardedActuator
from device_agent.guard.stop_watch import StopWatch

PRESSED, FREE = b"1", b"0"


class Time:
    """Seconds as the guard counts them."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time()
    monkeypatch.setattr(stop_watch, "time", made)
    return made


class Contact:
    """A line whose level is asked for, as a simulated board's is; what else it says is an edge."""

    def __init__(self, **members: Any) -> None:
        self._far, near = socket.socketpair()
        self._far.setblocking(False)
        data = {"kind": "level", "active": True, "steps": [b"?"], "answer": PRESSED}
        more = {"hold": False, "exclusive": False, "fd": True}
        self.watch = StopWatch("button", GuardAction({**data, **more, **members}, near.detach()))
        self.near: int = self.watch._action.fd

    def look(self, level: bytes, *actuators: GuardedActuator) -> bool:
        self._far.send(level)
        pressed = self.watch.look(actuators)
        assert self._far.recv(10) == b"?"
        return pressed

    def is_told(self) -> bool:
        return bool(select.select([self.watch], [], [], 0)[0])

    def close(self) -> None:
        self.watch.close()
        self._far.close()


@pytest.fixture
def contact(time: Time) -> Iterator[Contact]:
    contact = Contact()
    time.now_s += 1
    yield contact
    contact.close()


def actuator(name: str, *, hold: bool) -> GuardedActuator:
    data = {"kind": "bytes", "hold": hold, "exclusive": False}
    return GuardedActuator(name, name, [GuardAction(data, -1)])


def test_lines_are_made_safe_by_the_first_look_and_the_rest_15_ms_later(contact: Contact, time: Time) -> None:
    line, chip = actuator("valve", hold=True), actuator("relays", hold=False)
    assert not contact.look(FREE, line, chip)
    assert contact.look(PRESSED, line, chip)
    assert (line.pending, chip.pending) == (contact.watch.why, "")
    for after_s, told in ((0.001, ""), (0.013, ""), (0.0011, contact.watch.why)):
        line.pending = chip.pending = ""
        time.now_s += after_s
        assert not contact.look(PRESSED, line, chip)
        assert (line.pending, chip.pending) == (contact.watch.why, told)
    chip.pending = ""
    time.now_s += 1
    assert not contact.look(PRESSED, line, chip)
    assert chip.pending == "", "told once; its worker tries until it works"


def test_the_daemon_that_answers_does_the_rest(contact: Contact, time: Time) -> None:
    line, chip = actuator("valve", hold=True), actuator("relays", hold=False)
    assert contact.look(PRESSED, line, chip)
    line.pending = ""
    contact.watch.answered()
    time.now_s += 1
    assert not contact.look(PRESSED, line, chip)
    assert (line.pending, chip.pending) == ("", "")


def test_an_edge_wakes_it_once_though_nobody_takes_it(contact: Contact) -> None:
    assert not contact.is_told()
    contact.look(FREE)
    assert not contact.is_told(), "its own question is no edge"
    contact._far.send(PRESSED)
    assert contact.is_told()
    contact.watch._edges.poll(0)
    assert select.select([contact.near], [], [], 0)[0]
    assert not contact.is_told()


def test_where_nobody_below_does_it_a_level_must_hold(time: Time) -> None:
    contact = Contact(settles_s=0.02)
    for level, then_s, pressed in (
        (FREE, 0.0, False),
        (PRESSED, 0.015, False),
        (FREE, 0.015, False),
        (PRESSED, 0.015, False),
        (PRESSED, 0.015, True),
        (PRESSED, 0.015, False),
    ):
        time.now_s += then_s
        assert contact.look(level) is pressed
    contact.close()
