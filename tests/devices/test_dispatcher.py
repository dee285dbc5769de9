"""The order in which subscribers see what devices report."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from device_agent.clock import SystemClock
from device_agent.commands.control_side import build_control
from device_agent.config import load
from device_agent.devices.clock_chip import ClockChip
from device_agent.devices.dispatcher import Dispatcher
from device_agent.records import DeviceState, Reading, ReadingSubscriber, Status
from device_agent.safety.emergency_stop import EmergencyStop
from device_agent.safety.safe_states import SafeStates
from device_agent.store.journal.journal import Journal
from device_agent.store.store_thread import StoreThread

READING = Reading("lid", 0, {"closed": True})
STATUS = Status("lid", 0, DeviceState.OFFLINE, "unplugged")


class Recorder(ReadingSubscriber):
    """Writes down what it gets, into a list that all share."""

    def __init__(self, name: str, seen: list[tuple[str, object]]) -> None:
        self._name = name
        self._seen = seen

    def on_reading(self, reading: Reading) -> None:
        self._seen.append((self._name, reading))

    def on_readings(self, readings: Sequence[Reading]) -> None:
        self._seen.append((self._name, readings))

    def on_status(self, status: Status) -> None:
        self._seen.append((self._name, status))

    def on_bytes(self, device: str, data: bytes) -> None:
        self._seen.append((self._name, (device, data)))


def test_each_subscriber_is_done_before_the_next_one_begins() -> None:
    seen: list[tuple[str, object]] = []
    dispatcher = Dispatcher([Recorder("first", seen), Recorder("second", seen)])
    dispatcher.on_reading(READING)
    dispatcher.on_readings((READING,))
    dispatcher.on_status(STATUS)
    dispatcher.on_bytes("gps", b"$GPGGA")
    assert seen == [
        ("first", READING),
        ("second", READING),
        ("first", (READING,)),
        ("second", (READING,)),
        ("first", STATUS),
        ("second", STATUS),
        ("first", ("gps", b"$GPGGA")),
        ("second", ("gps", b"$GPGGA")),
    ]


def test_a_subscriber_implements_only_what_it_needs() -> None:
    class OnlyReadings(ReadingSubscriber):
        def on_reading(self, reading: Reading) -> None:
            seen.append(("readings", reading))

    seen: list[tuple[str, object]] = []
    dispatcher = Dispatcher([OnlyReadings(), Recorder("all", seen)])
    dispatcher.on_status(STATUS)
    dispatcher.on_bytes("gps", b"$")
    assert [name for name, _ in seen] == ["all", "all"]


def test_a_subscriber_that_fails_hides_the_reading_from_those_after_it() -> None:
    """Nobody hears of a reading that the emergency stop could not judge: the device is lost instead."""

    class Broken(ReadingSubscriber):
        def on_reading(self, reading: Reading) -> None:
            raise ValueError("a bug")

    seen: list[tuple[str, object]] = []
    dispatcher = Dispatcher([Broken(), Recorder("callers", seen)])
    with pytest.raises(ValueError, match="a bug"):
        dispatcher.on_reading(READING)
    assert seen == []


async def test_the_stop_sees_a_reading_before_conditions_and_these_before_callers(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(f'[agent]\nname = "a"\n[state]\ndirectory = "{tmp_path}"\n')
    clock, thread = SystemClock(), StoreThread()
    control = build_control(load(path), Journal(tmp_path / "journal.db", thread), clock)
    dispatcher = control.dispatcher(None, Recorder("callers", []), clock_chip=ClockChip(control.context))
    order = [type(subscriber) for subscriber in dispatcher.subscribers]
    assert order == [ClockChip, EmergencyStop, SafeStates, Recorder]
    assert repr(dispatcher) == "<Dispatcher to ClockChip, EmergencyStop, SafeStates, Recorder>"
    without = control.dispatcher()
    assert [type(subscriber) for subscriber in without.subscribers] == [EmergencyStop, SafeStates]
    await thread.close()
