"""The stand-in's state without HTTP: timetokens, presence, records, tasks, files, faults and their bounds."""

from __future__ import annotations

from typing import Any

import pytest

from device_agent.testing.network import Settings
from device_agent.testing.network.channels import Presence, TimetokenClock
from device_agent.testing.network.faults import FaultRule
from device_agent.testing.network.files import FileStore, PendingUpload
from device_agent.testing.network.records import PublishRecord, Records
from device_agent.testing.network.registry import RegisteredAgent, Registry
from device_agent.testing.network.tasks import Candidate, Task, TaskTable, candidates, choose


def test_timetokens_rise_strictly() -> None:
    clock = TimetokenClock()
    tokens = [clock.timetoken() for _ in range(10_000)]
    assert tokens == sorted(set(tokens))
    assert len(str(tokens[0])) == 17


def test_only_being_seen_makes_a_client_present() -> None:
    presence = Presence()
    presence.set_state("c", "me", {"activeTasks": 1})
    assert presence.live("c") == []
    presence.seen("c", "me", 60.0)
    presence.seen("c", "other", 60.0)
    assert [(one.uuid, one.state) for one in presence.live("c")] == [
        ("me", {"activeTasks": 1}),
        ("other", {}),
    ]
    presence.leave("c", "me")
    presence.leave("c", "never there")
    assert [one.uuid for one in presence.live("c")] == ["other"]


def test_a_client_without_heartbeat_lapses_and_comes_back_without_its_state() -> None:
    presence = Presence()
    presence.seen("c", "me", 0.0).state = {"activeTasks": 1}
    assert presence.live("c") == []
    assert presence.table() == {}
    assert presence.seen("c", "me", 60.0).state == {}


def record(channel: str, number: int, raw: str = "1", status: int = 200) -> PublishRecord:
    return PublishRecord(0.0, number, "playground", channel, "me", "write", None, raw, True, status)


def test_records_forget_the_oldest_beyond_their_bytes() -> None:
    records = Records(Settings(record_bytes=1500))
    for number in range(5):
        records.published(record("ab"[number % 2], number, "0" * 100))
    assert [one.timetoken for one in records.publishes()] == [2, 3, 4]
    assert [one.timetoken for one in records.publishes("a")] == [2, 4]
    assert records.counts == {"a": 3, "b": 2}


def test_refused_publishes_are_recorded_and_not_counted() -> None:
    records = Records(Settings())
    records.published(record("a", 1))
    records.published(record("a", 2, status=403))
    assert [one.timetoken for one in records.publishes("a")] == [1]
    assert [one.timetoken for one in records.publishes("a", refused=True)] == [1, 2]
    assert records.counts["a"] == 1


async def test_waiting_for_a_condition_ends_with_its_limit() -> None:
    records = Records(Settings())
    assert await records.wait_for(lambda: "value", 0.0) == "value"
    with pytest.raises(TimeoutError):
        await records.wait_for(lambda: None, 0.01)


@pytest.fixture
def agent() -> RegisteredAgent:
    return Registry(Settings()).register("x")


def task(agent: RegisteredAgent, number: int, **members: Any) -> Task:
    made = Task(f"t{number}", agent, "playground", "u", "u", "org", "request", [], False, {})
    for name, value in members.items():
        setattr(made, name, value)
    return made


def test_the_task_table_forgets_ended_tasks_first(agent: RegisteredAgent) -> None:
    table = TaskTable(2)
    first, second, third = (task(agent, number) for number in range(3))
    table.add(first, "key")
    table.add(second, None)
    assert table.by_key("org", "x", "key") is first
    assert second.saw({"type": "terminal", "state": "completed"}, "me")
    table.close(second)
    table.add(third, None)
    assert table.all() == [first, third]
    assert table.open_of(agent) == [first, third]
    table.add(task(agent, 4), None)
    assert table.get("t0") is None
    assert table.by_key("org", "x", "key") is None


def test_a_task_follows_its_events(agent: RegisteredAgent) -> None:
    one = task(agent, 1)
    agent.instances["AG"] = 1
    assert not one.saw({"type": "progress", "state": "other"}, "AG")
    assert one.saw({"type": "progress", "state": "running"}, "AG")
    assert (one.state, one.instance_id) == ("running", "AG")
    assert not one.saw({"type": "progress", "state": "running"}, "AG")
    assert not one.saw({"type": "terminal", "state": "strange"}, "AG")
    assert one.saw({"type": "terminal", "state": "failed"}, "AG")
    assert not one.saw({"type": "terminal", "state": "completed"}, "AG")
    assert (one.state, len(one.terminals)) == ("failed", 3)


def test_tasks_without_an_event_yet_count_as_load(agent: RegisteredAgent) -> None:
    presence = Presence()
    for uuid in ("a", "b", "unknown"):
        presence.seen("c", uuid, 60.0)
    agent.instances |= {"a": 2, "b": 0}
    presence.set_state("c", "a", {"activeTasks": 1})
    presence.set_state("c", "b", {"activeTasks": 5, "concurrency": True})
    underway = [task(agent, 1, instance_id="a"), task(agent, 2, instance_id="a", state="running")]
    found = candidates(agent, presence.live("c"), underway)
    assert [(one.instance_id, one.load, one.concurrency) for one in found] == [("a", 2, 2), ("b", 5, 0)]
    assert [one.free for one in found] == [False, True]


def test_the_least_loaded_instance_with_room_is_chosen() -> None:
    full = Candidate("full", 1, 1, 0.0)
    busy, idle, late = (
        Candidate("busy", 3, 4, 0.0),
        Candidate("idle", 1, 8, 2.0),
        Candidate("late", 1, 8, 3.0),
    )
    assert choose([full, busy, late, idle]) == idle
    assert choose([full]) is None


def upload(number: int, size: int) -> PendingUpload:
    return PendingUpload(
        f"u{number}", "provider-output", "f", size, "text/plain", "org", "x", data=b"x" * size
    )


def test_files_are_bounded_by_their_bytes_together() -> None:
    store = FileStore(10)
    ids = [store.store(upload(number, 4), "c")["fileId"] for number in range(3)]
    assert list(store.files) == ids[1:]
    big = store.store(upload(3, 20), "c")["fileId"]
    assert list(store.files) == [big]


def test_unconfirmed_bytes_are_dropped_beyond_the_limit() -> None:
    store = FileStore(10)
    uploads = [upload(number, 4) for number in range(3)]
    for one in uploads:
        store.request(one)
        store.received(one, b"x" * 4)
    assert [one.data is None for one in uploads] == [True, False, False]


def test_a_fault_rule_matches_all_of_its_patterns() -> None:
    rule = FaultRule("f1", "status", "/publish/*", uuid="AG-*", link="main", method="POST")
    assert rule.matches("/publish/a/b", "AG-1", "main", "POST")
    for other in (
        ("/time/0", "AG-1", "main", "POST"),
        ("/publish/a", "me", "main", "POST"),
        ("/publish/a", "AG-1", "second", "POST"),
        ("/publish/a", "AG-1", "main", "GET"),
    ):
        assert not rule.matches(*other)
    with pytest.raises(ValueError, match="unknown fault kind"):
        FaultRule("f2", "strange")
