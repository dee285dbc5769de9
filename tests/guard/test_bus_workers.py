"""The guard's threads: one for each bus, each failure tried again, no bus delays another."""

import os
import queue
import select
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from device_agent.guard import bus_workers
from device_agent.guard.bus_workers import BusWorkers, GuardAction, GuardedActuator
from support.waiting import until

LIMIT_S = 10.0


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """An end to read, and one that the action owns."""
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)


def writes(fd: int, data: bytes = b"off", **members: Any) -> GuardAction:
    plain = {"kind": "bytes", "steps": [data], "answer": b"", "hold": False, "exclusive": False}
    return GuardAction({**plain, **members}, fd)


class Broken(GuardAction):
    """Fails so many times before it works."""

    def __init__(self, failures: int) -> None:
        super().__init__({"kind": "bytes", "hold": False, "exclusive": False}, -1)
        self.failures = failures
        self.gate = threading.Event()
        self.gate.set()

    def carry_out(self) -> None:
        assert self.gate.wait(LIMIT_S)
        self.failures -= 1
        if self.failures >= 0:
            raise OSError("no answer")


def workers(*actuators: GuardedActuator) -> tuple[BusWorkers, "queue.SimpleQueue[dict[str, Any]]"]:
    reports: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    return BusWorkers({one.device: one for one in actuators}, reports.put), reports


def test_what_is_pending_is_done_and_reported(pipe: tuple[int, int]) -> None:
    valve = GuardedActuator("valve", "meter", [writes(pipe[1])])
    pump = GuardedActuator("pump", "meter", [writes(-1)])
    team, reports = workers(valve, pump)
    valve.make_safe("the daemon has died")
    team.start()
    report = reports.get(timeout=LIMIT_S)
    assert (report["device"], report["result"], report["why"]) == ("valve", "done", "the daemon has died")
    assert os.read(pipe[0], 10) == b"off"
    assert (valve.pending, pump.pending) == ("", ""), "a pump that is not pending is left alone"
    valve.actions[0].close()


def test_a_failure_is_reported_once_and_tried_until_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus_workers, "AGAIN_FIRST_S", 0.001)
    valve = GuardedActuator("valve", "meter", [Broken(3)])
    team, reports = workers(valve)
    valve.make_safe("test")
    team.start()
    results = [reports.get(timeout=LIMIT_S)["result"] for _ in range(2)]
    assert results == ["failed: no answer", "done"]


def test_one_broken_action_does_not_keep_the_next_from_running(pipe: tuple[int, int]) -> None:
    valve = GuardedActuator("valve", "meter", [Broken(1), writes(pipe[1])])
    team, reports = workers(valve)
    valve.make_safe("test")
    team.start()
    assert reports.get(timeout=LIMIT_S)["result"] == "failed: no answer"
    assert os.read(pipe[0], 3) == b"off"
    assert reports.get(timeout=LIMIT_S)["result"] == "done"
    valve.give_up(list(valve.actions))


def test_a_stuck_bus_delays_no_other() -> None:
    stuck, free = Broken(0), Broken(0)
    stuck.gate.clear()
    valve = GuardedActuator("valve", "stuck", [stuck])
    pump = GuardedActuator("pump", "free", [free])
    team, reports = workers(valve, pump)
    for one in (valve, pump):
        one.make_safe("test")
    team.start()
    assert reports.get(timeout=LIMIT_S)["device"] == "pump"
    stuck.gate.set()
    assert reports.get(timeout=LIMIT_S)["device"] == "valve"


def test_a_start_wakes_who_waits_for_the_next_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus_workers, "AGAIN_FIRST_S", 100 * LIMIT_S)
    monkeypatch.setattr(bus_workers, "AGAIN_MAX_S", 100 * LIMIT_S)
    valve = GuardedActuator("valve", "meter", [Broken(1)])
    team, reports = workers(valve)
    valve.make_safe("test")
    team.start()
    assert reports.get(timeout=LIMIT_S)["result"] == "failed: no answer"
    team.start()
    assert reports.get(timeout=LIMIT_S)["result"] == "done"


def test_a_closed_action_does_nothing_and_its_descriptor_is_closed_once(pipe: tuple[int, int]) -> None:
    action = writes(pipe[1])
    action.close()
    action.carry_out()
    action.close()
    assert os.read(pipe[0], 10) == b"", "the far end sees the end of the pipe"


def test_an_action_under_way_keeps_its_descriptor_until_it_has_ended() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    while select.select([], [writing], [], 0)[1]:
        os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    action = writes(writing)
    thread = threading.Thread(target=action.carry_out)
    thread.start()
    while not action._lock.locked():  # it waits until the far end reads
        thread.join(0.001)
    action.close()
    os.fstat(writing)
    os.set_blocking(reading, False)
    data = b""
    while thread.is_alive() or select.select([reading], [], [], 0)[0]:
        if select.select([reading], [], [], 0.01)[0]:
            part = os.read(reading, 65_536)
            if not part:
                break
            data += part
    thread.join(LIMIT_S)
    assert data.endswith(b"off")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(writing)
    os.close(reading)


def test_what_is_done_again_is_reported_once_and_never_not_at_all(pipe: tuple[int, int]) -> None:
    valve = GuardedActuator("valve", "pins", [writes(pipe[1])])
    team, reports = workers(valve)
    valve.make_safe("the stop was pressed")
    valve.make_safe("the stop was pressed", again=True)  # before anything was done
    team.start()
    assert reports.get(timeout=LIMIT_S)["result"] == "done"
    valve.make_safe("the stop was pressed", again=True)
    team.start()
    until(lambda: not valve.pending, "its end")
    valve.make_safe("the daemon has died")
    team.start()
    assert reports.get(timeout=LIMIT_S)["why"] == "the daemon has died"
    assert reports.empty()
