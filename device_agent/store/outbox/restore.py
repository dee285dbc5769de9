"""Putting a dead process's queue together again, from the disk and the crash log."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from device_agent.store.outbox.channel_queue import ChannelQueue
from device_agent.store.outbox.event import NOTHING, Event
from device_agent.store.outbox.live_queue import Overflow

ById = Callable[[list[int]], Awaitable[dict[int, Event] | None]]


class QueueRule:
    """What a lane needs of its stream, for one that no stream opens in this life: its queue is only kept."""

    overflow: Overflow = "drop-oldest"

    def __init__(self, records: list[list[Any]]) -> None:
        in_bytes = any(record[0] == "a" and record[4] is None for record in records)
        self.format = "bytes" if in_bytes else "events"


async def restore(lane: ChannelQueue, records: list[list[Any]], by_id: ById) -> None:
    """Bring a lane to the state that these records tell."""
    fresh: dict[int, Event] = {}
    under_way: list[Any] | None = None
    done: list[int] = []
    refused: list[Any] | None = None
    for record in records:
        kind = record[0]
        if kind == "a":
            _, _, id_, data, seq, at_ms, what, device = record
            fresh[id_] = Event(id_, data, seq, at_ms, what, device, float("-inf"))
            if seq is not None:
                lane.restore_numbers(seq + 1, 0)
            # A gap is made of all that was refused before it.
            refused = None
        elif kind == "c":
            under_way = record
            lane.restore_numbers(0, record[2] + 1)
        elif kind == "k" and under_way is not None and under_way[2] == record[2]:
            done += [ref[0] for ref in under_way[4]]
            under_way = None
        elif kind == "g":
            done.append(record[2])
        elif kind == "n":
            lane.restore_numbers(record[2], record[3])
        elif kind == "l":
            refused = [(refused or record)[0], "", record[2] + (refused[2] if refused else 0), *record[3:]]
    refs = under_way[4] if under_way is not None else []
    found_there = await by_id([*done, *(ref[0] for ref in refs), *fresh])
    stored = found_there or {}
    if found_there is None:
        # That disk cannot be read now. What it has of these is gone when it is back, and never sent again.
        lane.doom([id_ for id_ in done if id_ not in fresh])
    for id_ in done:
        fresh.pop(id_, None)
    lane.restore_acked([stored[id_] for id_ in done if id_ in stored])
    if under_way is not None:
        known = {**fresh, **stored}
        found = [(known[ref[0]], bool(ref[1])) for ref in refs if ref[0] in known]
        lane.restore_cut(under_way[2], under_way[3], found, *under_way[5:7])
        for ref in refs:
            fresh.pop(ref[0], None)
        if len(found) < len(refs) and found_there is not None:
            lane.say_lost(replace(NOTHING, count=len(refs) - len(found)), "power_cut")
    lane.restore_events([event for id_, event in sorted(fresh.items()) if id_ not in stored])
    if refused is not None:
        lane.restore_refused(*refused[2:5])
