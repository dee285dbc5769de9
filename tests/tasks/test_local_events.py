"""What a door on the device gets by itself: of what it may read, through the outbox, as a stream has it."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from device_agent.messages.acks import Ack
from device_agent.records import DeviceState, Reading, Status
from device_agent.store.outbox.outbox import Outbox
from device_agent.store.store_thread import StoreThread
from device_agent.tasks.local_events import LocalEvents
from support.control_side import Ground

ACCESS = """
[access.devices.heater]
read = ["local:page"]
"""


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[LocalEvents]:
    thread = StoreThread()
    async with Ground(tmp_path, ACCESS) as ground:
        clock = ground.control.context.clock
        outbox = Outbox(
            tmp_path, tmp_path, max_bytes=1_000_000, commit_interval_s=0.5, thread=thread, clock=clock
        )
        await outbox.load()
        yield LocalEvents("local:mqtt", ground.control, outbox, "drop-oldest")
        await outbox.close()
    await thread.close()


def sent(local: LocalEvents) -> list[dict[str, Any]]:
    message = local.source.next_message(100_000)
    if message is None:
        return []
    local.source.ack(message)
    return [json.loads(item) for item in message.items]


async def test_it_begins_as_a_stream_does_and_shows_what_may_be_read(local: LocalEvents) -> None:
    reading = Reading("up", 1, {"on": True, "level": 2.0})
    local.on_readings([reading])  # before it is open: nobody hears of it
    await local.open()
    begin, *rest = sent(local)
    assert (begin["kind"], begin["about"], begin["devices"]) == ("control", "session", ["down", "up"])
    assert [(one["kind"], one["device"]) for one in rest] == [("status", "up"), ("status", "down")]
    for device in ("up", "heater"):
        local.on_readings([Reading(device, 1, {"on": True, "level": 2.0})])
        local.on_status(Status(device, 1, DeviceState.FAULT, "timeout"))
    local.answered(Ack("c1").members())
    events = sent(local)
    assert [(one["kind"], one.get("device")) for one in events] == [
        ("reading", "up"),
        ("status", "up"),
        ("ack", None),
    ]
    assert [one["seq"] for one in (begin, *rest, *events)] == [1, 2, 3, 4, 5, 6]
    assert "heater" not in await local.news()
    assert local.readable() == ["up", "down"]
    local.close()
    local.on_readings([reading])
    with pytest.raises(RuntimeError):
        _ = local.source
