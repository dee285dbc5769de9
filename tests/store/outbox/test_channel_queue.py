"""One channel's queue: numbers, the order of live and late events, limits, overflow rules, replay."""

import asyncio
import json
from typing import Any

import pytest

from device_agent.messages import events
from device_agent.network import OutgoingMessage
from device_agent.records import DeviceState, Status
from device_agent.store.outbox import channel_queue
from device_agent.store.outbox.channel_queue import LATE_AFTER_S, ChannelQueue
from support.outbox_machine import Machine, Rule


class Bytes(Rule):
    """The stream of a console."""

    format = "bytes"


@pytest.fixture
async def machine(machines: Any) -> Machine:
    made: Machine = machines()
    await made.boot(Rule())
    return made


@pytest.fixture
def queue(machine: Machine) -> ChannelQueue:
    return machine.queue


def body(message: OutgoingMessage | None) -> list[dict[str, Any]]:
    assert message is not None
    return [json.loads(item) for item in message.items]


def values(message: OutgoingMessage | None) -> list[float]:
    return [event["values"]["v"] for event in body(message)]


# -- numbers ----------------------------------------


async def test_events_and_messages_are_numbered_from_one(machine: Machine, queue: ChannelQueue) -> None:
    machine.append(2)
    first = queue.next_message(10_000)
    assert first is not None
    assert first.number == 1
    assert [event["seq"] for event in body(first)] == [1, 2]
    queue.ack(first)
    assert queue.next_number == 2


async def test_messages_of_a_byte_stream_are_numbered_from_zero(machines: Any) -> None:
    machine = machines()
    await machine.boot(Bytes())
    machine.queue.append_bytes(b"login: ")
    message = machine.queue.next_message(1000)
    assert (message.number, message.items) == (0, (b"login: ",))


async def test_a_message_in_flight_stays_the_same_until_it_is_acknowledged(
    machine: Machine, queue: ChannelQueue
) -> None:
    machine.append(1)
    first = queue.next_message(10_000)
    machine.append(1)
    assert queue.next_message(10) is first
    assert first is not None
    queue.ack(OutgoingMessage(first.number, first.items, first.ts_ms))
    assert queue.next_message(10_000) is first, "only this very message is acknowledged"
    queue.ack(first)
    assert values(queue.next_message(10_000)) == [2.0]
    queue.ack(first)
    assert values(queue.next_message(10_000)) == [2.0], "an old acknowledgement changes nothing"


async def test_nothing_to_send_is_none(queue: ChannelQueue) -> None:
    assert queue.next_message(10_000) is None
    assert queue.next_number == 1


# -- size and order ----------------------------------------


async def test_a_message_keeps_its_limit_but_has_one_event_at_least(
    machine: Machine, queue: ChannelQueue
) -> None:
    machine.append(10)
    for limit, count in ((1, 1), (500, 4)):
        message = queue.next_message(limit)
        assert message is not None
        assert len(message.items) == count
        assert count == 1 or sum(len(item) + 1 for item in message.items) <= limit
        queue.ack(message)
    assert queue.pending_events == 5


async def test_late_events_get_half_of_a_message_and_are_marked(
    machine: Machine, queue: ChannelQueue
) -> None:
    machine.append(10)
    machine.clock.step(LATE_AFTER_S + 1)
    machine.append(10)
    sent = body(queue.next_message(1000))
    late = [event["values"]["v"] for event in sent if event.get("late")]
    live = [event["values"]["v"] for event in sent if "late" not in event]
    assert late == [float(n) for n in range(1, len(late) + 1)]
    assert live == [float(n) for n in range(11, 11 + len(live))]
    assert len(late) in range(len(live) - 1, len(live) + 2)


async def test_an_answer_goes_with_the_next_message(machine: Machine, queue: ChannelQueue) -> None:
    """Where the link takes less than is measured it would be late itself, behind all that is late already."""
    machine.append(100)
    machine.answer()
    machine.append(3)
    cut = queue.next_message(1000)
    sent = body(cut)
    live = [event["seq"] for event in sent if not event.get("late")]
    assert live == [101, 102, 103, 104]
    assert sent[0]["kind"] == "ack"
    assert [event["seq"] for event in sent if event.get("late")][:2] == [1, 2]
    assert cut is not None
    queue.ack(cut)
    await machine.drain()


async def test_an_answer_that_fits_makes_nothing_late(machine: Machine, queue: ChannelQueue) -> None:
    machine.append(3)
    machine.answer()
    machine.append(100)
    sent = body(queue.next_message(1000))
    assert not any(event.get("late") for event in sent)
    assert [event["seq"] for event in sent[:4]] == [1, 2, 3, 4]


async def test_without_live_events_late_ones_fill_the_message(machine: Machine, queue: ChannelQueue) -> None:
    machine.append(5)
    machine.clock.step(LATE_AFTER_S + 1)
    assert values(queue.next_message(10_000)) == [1.0, 2.0, 3.0, 4.0, 5.0]


async def test_an_event_is_live_up_to_the_limit(machine: Machine, queue: ChannelQueue) -> None:
    machine.append(1)
    machine.clock.step(LATE_AFTER_S)
    assert "late" not in body(queue.next_message(10_000))[0]


async def test_bytes_are_never_late(machines: Any) -> None:
    machine = machines()
    await machine.boot(Bytes())
    machine.queue.append_bytes(b"a")
    machine.clock.step(LATE_AFTER_S + 1)
    machine.queue.append_bytes(b"b")
    assert machine.queue.next_message(1000).items == (b"a", b"b")


# -- waiting ----------------------------------------


async def test_it_is_ready_when_something_was_appended(machine: Machine, queue: ChannelQueue) -> None:
    ready = asyncio.ensure_future(queue.until_ready())
    await asyncio.sleep(0)
    assert not ready.done()
    machine.append(1)
    await asyncio.wait_for(ready, 5)


async def test_it_is_ready_when_it_is_closed_and_takes_nothing_more(queue: ChannelQueue) -> None:
    ready = asyncio.ensure_future(queue.until_ready())
    queue.close()
    await asyncio.wait_for(ready, 5)
    assert not queue.append(events.progress(0, "late", None))
    queue.append_bytes(b"late")
    assert queue.pending_events == 0
    assert "closed" in repr(queue)


async def test_it_shows_its_state(machine: Machine, queue: ChannelQueue) -> None:
    machine.append(2)
    machine.clock.step(LATE_AFTER_S + 1)
    machine.append(1)
    assert repr(queue) == "<ChannelQueue s: 1 live, 2 late, in flight none>"
    queue.next_message(1)
    assert "in flight 1" in repr(queue)


# -- replay ----------------------------------------


async def sent(machine: Machine, count: int) -> None:
    machine.append(count)
    await machine.drain()


async def test_replay_sends_again_with_the_same_numbers_and_late(
    machine: Machine, queue: ChannelQueue
) -> None:
    await sent(machine, 5)
    assert queue.replay(4) == 4
    again = body(queue.next_message(10_000))
    assert [(event["seq"], event["late"]) for event in again] == [(4, True), (5, True)]


async def test_replay_of_what_was_not_sent_yet_is_nothing(machine: Machine, queue: ChannelQueue) -> None:
    await sent(machine, 2)
    assert queue.replay(3) is None
    assert queue.next_message(10_000) is None


async def test_replay_begins_where_it_still_can(
    machine: Machine, queue: ChannelQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_queue, "SENT_MAX_BYTES", 300)
    await sent(machine, 10)
    first = queue.replay(1)
    assert first is not None
    assert first > 1
    assert [event["seq"] for event in body(queue.next_message(10_000))] == list(range(first, 11))


# -- overflow ----------------------------------------


async def test_refused_readings_are_reported_by_one_gap_when_there_is_space(machines: Any) -> None:
    machine = machines(max_bytes=50_000)
    await machine.boot(Rule("refuse"))
    queue = machine.queue
    machine.append(1000)
    made = queue.pending_events
    assert made < 1000
    assert machine.outbox.counts.lost == {"overflow": 1000 - made}
    status = Status("d", machine.clock.now_ms(), DeviceState.OFFLINE, "unplugged")
    assert queue.append(events.status(status)), "only readings are refused"
    received = []
    while (message := queue.next_message(1000)) is not None:
        received += body(message)
        queue.ack(message)
    (gap,) = [event for event in received if event["kind"] == "gap"]
    assert (gap["reason"], gap["count"]) == ("overflow", 1000 - made)
    assert (gap["from_seq"], gap["to_seq"]) == (None, None), "no number was spent on them"
    assert sorted(event["seq"] for event in received) == list(range(1, len(received) + 1))
    assert machine.outbox.counts.lost == {"overflow": 1000 - made}


async def test_bytes_that_nobody_reads_are_bounded(machines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_queue, "BYTES_MAX", 1000)
    machine = machines()
    await machine.boot(Bytes())
    for number in range(30):
        machine.queue.append_bytes(b"%02d" % number * 50)
    assert machine.queue.pending_bytes <= 1400
    assert machine.outbox.counts.lost["overflow"] == 30 - machine.queue.pending_events
    last = b"".join(machine.queue.next_message(10_000).items)
    assert last.endswith(b"29")


async def test_the_oldest_are_dropped_and_the_gap_has_their_numbers(
    machine: Machine, queue: ChannelQueue
) -> None:
    machine.append(10)
    queue.free_memory(500)
    received = body(queue.next_message(10_000))
    gap = received[-1]
    assert (gap["kind"], gap["from_seq"], gap["to_seq"]) == ("gap", 1, gap["count"])
    assert [event["seq"] for event in received] == list(range(gap["count"] + 1, 12))


async def test_the_newest_event_is_never_dropped(machine: Machine, queue: ChannelQueue) -> None:
    machine.append(10)
    queue.free_memory(1_000_000)
    assert [event["kind"] for event in body(queue.next_message(10_000))] == ["reading", "gap"]


async def test_discarding_frees_all_that_was_counted(machine: Machine, queue: ChannelQueue) -> None:
    machine.append(10)
    queue.next_message(1)
    machine.outbox.forget("s")
    assert (machine.outbox.used_bytes, machine.outbox.memory_bytes) == (0, 0)
    assert queue.next_message(10_000) is None
