"""What the network asks of the tasks: begin, end, continue after a restart, and how many there are."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from device_agent.tasks.manager import TaskManager
from device_agent.tasks.result_delivery import ResultFile, TaskResult
from device_agent.tasks.services import Services
from support.fake_task_link import FakeTaskLink, start_of
from support.waiting import until_async

LARGE = b"x" * 20_000


@pytest.fixture
async def manager(services: Services) -> AsyncIterator[TaskManager]:
    manager = TaskManager(services)
    await manager.load()
    yield manager
    await manager.pause()


def begun(manager: TaskManager, start: Any) -> FakeTaskLink:
    link = FakeTaskLink(start)
    manager.begin(link)
    return link


def hanging(services: Services, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """The fan does not answer any more; the event says that it was asked."""
    began = asyncio.Event()

    async def hang() -> None:
        began.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(services.devices["fan"], "read_now", hang)
    return began


async def later(services: Services, manager: TaskManager) -> TaskManager:
    """The next process, which finds what this one left."""
    await manager.pause()
    await manager.remembered()
    manager = TaskManager(services)
    await manager.load()
    return manager


async def test_a_task_is_known_from_its_beginning_and_runs_to_its_end(manager: TaskManager) -> None:
    assert not manager.knows("t1")
    link = begun(manager, start_of("t1", "request", {"op": "read"}))
    assert manager.knows("t1")
    assert manager.is_running("t1")
    await until_async(lambda: link.terminals)
    await until_async(lambda: not manager.is_running("t1"))
    assert manager.knows("t1"), "it must not begin again"
    assert manager.resumable() == []


async def test_tasks_and_dedicated_streams_are_counted(manager: TaskManager) -> None:
    link = begun(manager, start_of("t1", "pipe", duration_min=5))
    await until_async(lambda: len(link.streams) == 3)
    assert manager.load_now() == (1, 2), "the shared stream is no session's own"


async def test_no_more_than_concurrency(manager: TaskManager, services: Services) -> None:
    agent = services.config.agent.model_copy(update={"concurrency": 1})
    services.executor.use_config(replace(services.config, agent=agent))
    another = start_of("t2", "pipe", duration_min=5)
    assert manager.has_room(another)
    link = begun(manager, start_of("t1", "pipe", duration_min=5))
    assert not manager.has_room(another)
    assert manager.has_room(start_of("t3", "request", {"op": "stop"})), "a stop always has"
    assert manager.end("t1", "cancel")
    await until_async(lambda: link.terminals)
    await until_async(lambda: manager.has_room(another))


async def test_a_kind_that_is_not_served_fails_at_once(manager: TaskManager, services: Services) -> None:
    agent = services.config.agent.model_copy(update={"task_kinds": ("request",)})
    services.executor.use_config(replace(services.config, agent=agent))
    link = begun(manager, start_of("t1", "pipe", duration_min=5))
    assert link.terminals == [("failed", "not_allowed: this agent serves no pipe tasks")]
    assert not manager.is_running("t1")


@pytest.mark.parametrize(("how", "reason"), [("cancel", ""), ("terminate", "terminated")])
async def test_a_request_ends_although_its_device_hangs(
    manager: TaskManager, services: Services, monkeypatch: pytest.MonkeyPatch, how: Any, reason: str
) -> None:
    began = hanging(services, monkeypatch)
    link = begun(manager, start_of("t1", "request", {"op": "read", "devices": ["fan"]}))
    await asyncio.wait_for(began.wait(), 10)
    assert manager.end("t1", how)
    await until_async(lambda: not manager.is_running("t1"))
    assert link.terminals == [("canceled", reason)]


async def test_an_end_that_comes_with_the_beginning_counts(manager: TaskManager) -> None:
    """Both messages may come in one answer of the network."""
    link = begun(manager, start_of("t1", "request", {"op": "read"}))
    assert manager.end("t1", "cancel")
    await until_async(lambda: not manager.is_running("t1"))
    assert link.terminals[0] == ("canceled", "")


async def test_the_end_of_a_task_that_does_not_run_is_no_end(manager: TaskManager) -> None:
    assert not manager.end("t1", "cancel")


async def test_a_session_that_fails_has_an_end_and_leaves_nothing_on(
    manager: TaskManager, services: Services
) -> None:
    link = begun(manager, start_of("t1", "pipe", duration_min=5))
    await until_async(lambda: len(link.streams) == 3)
    link.streams["orders"].send({"kind": "set", "id": "1", "device": "up", "values": {"on": True}})
    await until_async(lambda: services.safe_states.away(["up"]))
    manager.sessions["t1"]._ended.set_exception(ZeroDivisionError())
    await until_async(lambda: not manager.is_running("t1"))
    [(state, error)] = link.terminals
    assert (state, error) == ("failed", "internal: the session failed; see the agent's log")
    assert services.safe_states.away(["up"]) == []


# -- restarts -------------------------------------------------------------------------------------------


async def test_a_session_continues_in_the_next_process(manager: TaskManager, services: Services) -> None:
    first = begun(manager, start_of("t1", "pipe", {"streams": ["control"]}, duration_min=5))
    await until_async(lambda: first.streams)
    first.streams["control"].send({"kind": "pause"})
    await until_async(lambda: first.streams["control"].of("control", about="pause"))
    following = await later(services, manager)
    assert first.terminals == []
    assert first.streams["control"].closed == "closed"
    assert [start.task_id for start in following.resumable()] == ["t1"]
    link = FakeTaskLink(following.resumable()[0])
    following.resume(link)
    await until_async(lambda: link.streams)
    assert link.announced == {"control": True}
    assert "paused" in repr(following.sessions["t1"].streams["control"].subscription)
    following.end("t1", "cancel")
    await until_async(lambda: link.terminals)
    await until_async(lambda: not following.is_running("t1"))
    assert (await later(services, following)).resumable() == []


async def test_a_request_that_was_cut_off_fails_in_the_next_process(
    manager: TaskManager, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = hanging(services, monkeypatch)
    begun(manager, start_of("t1", "request", {"op": "read", "devices": ["fan"]}))
    await asyncio.wait_for(began.wait(), 10)
    following = await later(services, manager)
    link = FakeTaskLink(following.resumable()[0])
    following.resume(link)
    [(state, error)] = link.terminals
    assert state == "failed"
    assert "restarted" in error
    assert following.resumable() == []
    assert not following.is_running("t1")


async def test_a_result_that_was_not_delivered_goes_out_in_the_next_process(
    manager: TaskManager, services: Services
) -> None:
    start = start_of("t1", "request", {"op": "history"})
    services.journal.begin_task(start, 0)
    path = services.config.state.directory / "requests" / "file"
    path.parent.mkdir()
    path.write_bytes(LARGE)
    result = TaskResult("history", "done", files=[ResultFile("history", "h.csv", "text/csv", path)])
    services.journal.note_session("t1", result.to_journal())
    await services.journal.flushed()
    following = TaskManager(services)
    following._unfinished = {s.task_id: (s, saved) for s, saved in await services.journal.unfinished_tasks()}
    link = FakeTaskLink(start)
    following.resume(link)
    await until_async(lambda: link.terminals)
    assert link.terminals == [("completed", "")]
    assert link.artifacts["history"] == LARGE
    await until_async(lambda: not following.is_running("t1"))


# -- rights and the safety side -------------------------------------------------------------------------


async def test_a_lost_right_to_drive_makes_safe_at_once(manager: TaskManager, services: Services) -> None:
    link = begun(manager, start_of("t1", "pipe", {"streams": ["control"]}, duration_min=5))
    await until_async(lambda: link.streams)
    control = link.streams["control"]
    control.send({"kind": "set", "id": "1", "device": "up", "values": {"on": True}})
    await until_async(lambda: control.of("ack", id="1"))
    control.link_silent_s = 4
    assert manager.overdue() == {"up": "no link for 3 s"}
    access = services.config.access.model_copy(update={"drive": ()})
    services.executor.use_config(replace(services.config, access=access))
    await manager.judge_again()
    assert services.safe_states.away(["up"]) == []
    assert manager.overdue() == {}
    assert manager.is_running("t1"), "it may still read"


async def test_who_drives_and_is_silent_is_told_apart(manager: TaskManager, services: Services) -> None:
    link = begun(manager, start_of("t1", "pipe", {"streams": ["control"]}, duration_min=5))
    await until_async(lambda: link.streams)
    control = link.streams["control"]
    control.send({"kind": "set", "id": "1", "device": "up", "values": {"on": True}})
    await until_async(lambda: control.of("ack", id="1"))
    services.clock.step(61)  # type: ignore[attr-defined]
    assert manager.overdue() == {"up": "its caller has said nothing for 60 s"}, "the fan is at safe"


async def test_a_reload_replaces_devices_of_sessions(manager: TaskManager, services: Services) -> None:
    link = begun(manager, start_of("t1", "pipe", {"streams": ["control"]}, duration_min=5))
    await until_async(lambda: link.streams)
    scope = manager.sessions["t1"].streams["control"].scope
    services.devices["fan"] = services.devices["down"]  # type: ignore[index]
    manager.replace_devices(gone=["fan", "up"], fresh=["fan"])
    assert scope.devices == {"fan": services.devices["down"]}
