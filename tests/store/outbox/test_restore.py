"""Restoring a queue from crash records, kind by kind, and with a disk that cannot be read."""

import json
from dataclasses import replace
from typing import Any

import pytest

from device_agent.clock import EARLIEST_TRUE_MS
from device_agent.messages import events
from device_agent.network import OutgoingMessage
from device_agent.records import Reading
from device_agent.store.outbox import crash_records
from device_agent.store.outbox.channel_queue import ChannelQueue
from device_agent.store.outbox.crash_records import Record
from device_agent.store.outbox.event import DiskState, Event
from device_agent.store.outbox.loss import Loss
from device_agent.store.outbox.restore import format_of, restore
from support.outbox_machine import Machine, Rule

AT_MS = EARLIEST_TRUE_MS


def event(number: int, at_ms: int = AT_MS) -> Event:
    draft = events.reading(Reading("d", at_ms, {"v": float(number)}), "boot")
    return Event(100 + number, draft.numbered(number), number, at_ms, "reading", "d", 0.0)


def added(*numbers: int) -> list[Record]:
    return [crash_records.added("s", event(number)) for number in numbers]


def in_flight(number: int, *events_: int) -> Record:
    message = OutgoingMessage(number, (), AT_MS + 5)
    return crash_records.in_flight("s", message, [(event(n), False) for n in events_], "boot", 0)


class Disk:
    """What the outbox file has; `None` if it cannot be read."""

    def __init__(self, *numbers: int, readable: bool = True) -> None:
        self._events = {100 + n: event(n) for n in numbers}
        for stored in self._events.values():
            stored.disk_state = DiskState.STORED
        self._readable = readable

    async def read(self, ids: list[int]) -> dict[int, Event] | None:
        return {id_: self._events[id_] for id_ in ids if id_ in self._events} if self._readable else None


@pytest.fixture
async def machine(machines: Any) -> Machine:
    made: Machine = machines()
    await made.boot(Rule())
    return made


@pytest.fixture
def queue(machine: Machine) -> ChannelQueue:
    return machine.queue


def sent(queue: ChannelQueue) -> list[dict[str, Any]]:
    """All that goes out now."""
    received: list[dict[str, Any]] = []
    while (message := queue.next_message(10_000)) is not None:
        received += [json.loads(item) for item in message.items]
        queue.ack(message)
    return received


async def test_queued_events_come_again_as_late_ones(queue: ChannelQueue) -> None:
    await restore(queue, added(1, 2), Disk().read, "boot")
    assert [(e["seq"], e["late"]) for e in sent(queue)] == [(1, True), (2, True)]
    assert queue.next_seq == 3


async def test_numbers_go_on_behind_the_greatest_that_is_known(queue: ChannelQueue) -> None:
    await restore(queue, [crash_records.numbers("s", 7, 4), *added(3), in_flight(9, 3)], Disk().read, "boot")
    assert (queue.next_seq, queue.next_number) == (7, 10)


async def test_the_message_in_flight_comes_again_with_its_number_and_content(queue: ChannelQueue) -> None:
    await restore(queue, [*added(1, 2, 3), in_flight(4, 1, 2)], Disk().read, "boot")
    message = queue.next_message(10)
    assert message is not None
    assert (message.number, message.ts_ms) == (4, AT_MS + 5)
    assert message.items == (event(1).data, event(2).data)
    queue.ack(message)
    assert [e["seq"] for e in sent(queue)] == [3]


async def test_an_acknowledged_message_does_not_come_again(queue: ChannelQueue) -> None:
    records = [*added(1, 2), in_flight(1, 1), crash_records.acknowledged("s", 1)]
    await restore(queue, records, Disk().read, "boot")
    assert [e["seq"] for e in sent(queue)] == [2]
    assert queue.next_number == 3


async def test_an_acknowledgement_of_another_message_is_ignored(queue: ChannelQueue) -> None:
    await restore(
        queue, [*added(1), in_flight(2, 1), crash_records.acknowledged("s", 1)], Disk().read, "boot"
    )
    message = queue.next_message(10)
    assert message is not None
    assert message.number == 2


async def test_events_that_the_disk_has_too_come_once(queue: ChannelQueue) -> None:
    await restore(queue, added(1, 2), Disk(1).read, "boot")
    assert [e["seq"] for e in sent(queue)] == [2], "the other one is read from the disk"


async def test_an_event_in_flight_that_is_nowhere_is_reported(queue: ChannelQueue) -> None:
    await restore(queue, [*added(1), in_flight(1, 1, 2)], Disk().read, "boot")
    message = queue.next_message(10)
    assert message is not None
    assert message.items == (event(1).data,)
    queue.ack(message)
    (gap,) = sent(queue)
    assert (gap["kind"], gap["reason"], gap["count"]) == ("gap", "power_cut", 1)
    assert (gap["from_seq"], gap["to_seq"]) == (2, 2)


async def test_while_the_disk_cannot_be_read_its_acknowledged_events_are_deleted_later(
    machine: Machine, queue: ChannelQueue
) -> None:
    records = [in_flight(1, 5), crash_records.acknowledged("s", 1), crash_records.deleted("s", 106)]
    await restore(queue, records, Disk(readable=False).read, "boot")
    assert machine.outbox._deletes == [("s", 105), ("s", 106)]
    assert sent(queue) == []


async def test_refused_readings_are_added_up_and_reported(queue: ChannelQueue) -> None:
    records = [
        crash_records.lost("s", "boot", [Loss("overflow", 2, AT_MS + 1, AT_MS + 2)], (), ()),
        crash_records.lost("s", "boot", [Loss("overflow", 1, AT_MS + 9, AT_MS + 9)], (), ()),
    ]
    await restore(queue, records, Disk().read, "boot")
    (gap,) = sent(queue)
    assert (gap["count"], gap["from_at"], gap["to_at"]) == (3, AT_MS + 1, AT_MS + 9)


async def test_what_a_gap_told_is_not_told_again(queue: ChannelQueue) -> None:
    lost = crash_records.lost("s", "boot", [Loss("overflow", 2, AT_MS, AT_MS)], (), ())
    await restore(queue, [lost, *added(1), crash_records.told("s")], Disk().read, "boot")
    assert [e["kind"] for e in sent(queue)] == ["reading"]


async def test_what_is_gone_does_not_come_again_and_what_changed_comes_changed(
    machine: Machine, queue: ChannelQueue
) -> None:
    """In memory (1, 2) and on disk (4), where the change was not written yet."""
    changed = [replace(event(n), data=event(n + 10).data.replace(b'"seq":1', b'"seq":')) for n in (2, 4)]
    loss = Loss("thinned", 2, AT_MS, AT_MS)
    lost = crash_records.lost("s", "boot", [loss], [event(1)], changed)
    await restore(queue, [*added(1, 2), lost], Disk(4).read, "boot")
    assert machine.outbox._replacements[104][1].data == changed[1].data
    found = sent(queue)
    assert [(e["seq"], e["values"]["v"]) for e in found if e["kind"] == "reading"] == [(2, 12.0)]


async def test_a_loss_of_another_boot_without_a_true_time_has_none(queue: ChannelQueue) -> None:
    lost = crash_records.lost("s", "an earlier one", [Loss("overflow", 1, 5000, AT_MS, 7, 7)], (), ())
    await restore(queue, [lost], Disk().read, "boot")
    (gap,) = sent(queue)
    assert (gap["from_at"], gap["to_at"]) == (gap["at"], AT_MS)


async def test_a_snapshot_restores_the_same_state(machine: Machine, queue: ChannelQueue) -> None:
    machine.append(5)
    message = queue.next_message(250)
    records = queue.snapshot()
    again = await machine.outbox.open("t", "events", "drop-oldest")
    await restore(again, records, Disk().read, "boot")
    assert again.next_message(250) == message
    assert (again.next_seq, again.next_number) == (queue.next_seq, queue.next_number)
    assert again.pending_events == queue.pending_events


async def test_the_content_in_flight_stays_the_same_over_two_crashes(queue: ChannelQueue) -> None:
    """The second process must not date it by its own clock."""
    records = [*added(1), in_flight(1, 1)]
    await restore(queue, records, Disk().read, "boot")
    record = queue.in_flight_record()
    assert record == records[-1]


def test_the_format_is_found_in_the_records() -> None:
    chunk = crash_records.added("s", Event(1, b"x", None, 0, "bytes", "", 0.0))
    assert format_of([crash_records.numbers("s", 1, 1), chunk]) == "bytes"
    assert format_of(added(1)) == "events"
    assert format_of([]) == "events"
