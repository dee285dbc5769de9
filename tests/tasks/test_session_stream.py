"""What the end of a session leaves: no command that still moves, and to others all that was theirs."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from device_agent.config.models import StreamConfig
from device_agent.messages.events import EventDraft
from device_agent.network import Caller, Inbound, StartTask, StreamSpec
from device_agent.records import Reading
from device_agent.tasks.services import Services
from device_agent.tasks.session_stream import SessionStream, SharedSessionStreams
from device_agent.tasks.stream_input import Former
from device_agent.tasks.stream_scope import StreamScope
from device_agent.tasks.stream_subscriptions import StreamSubscriptions
from support.control_side import ALICE, Ground, Relay, actor
from support.waiting import until_async

SPEC = StreamSpec("orders", "t1-1", "inbound", "events", "dedicated")


class Session:
    """A session that carries no events outwards, and so answers nothing."""

    def __init__(self) -> None:
        self.answers: list[EventDraft] = []

    def on_command(self, stream: SessionStream, command: object) -> dict[str, Any]:
        return {}

    def answer(self, draft: EventDraft) -> None:
        self.answers.append(draft)


def stream_of(
    ground: Ground, spec: StreamSpec, config: StreamConfig, devices: Any, **more: Any
) -> SessionStream:
    """A stream with these devices; `more` is its queue and its subscriptions."""
    services = Services(
        devices=ground.devices,
        subscriptions=more.get("subscriptions") or StreamSubscriptions(ground.clock),
        executor=ground.executor,
        safe_states=ground.safe_states,
        outbox=None,  # type: ignore[arg-type]
        journal=ground.journal,
        history_service=None,  # type: ignore[arg-type]
        clock=ground.clock,
    )
    return SessionStream(services, StreamScope(spec, config, dict(devices)), more.get("queue"), Session())


class Wire:
    """The stream and the task of a session: `send` is the caller's."""

    spec = SPEC
    start = StartTask("t1", "pipe", ALICE, "org_a")

    def __init__(self) -> None:
        self._items: asyncio.Queue[Inbound] = asyncio.Queue()

    def send_bytes(self, data: bytes) -> None:
        self._items.put_nowait(Inbound(data, 0.0, "alice-stream-0001"))

    def send(self, id_: str) -> None:
        command = {"kind": "set", "id": id_, "device": "up", "values": {"on": True}}
        self._items.put_nowait(Inbound(command, 0.0, "alice-stream-0001"))

    async def inbound(self) -> AsyncIterator[Inbound]:
        while True:
            yield await self._items.get()

    async def close(self, *, end: bool) -> None:
        await asyncio.sleep(0.05)  # the way to the network and back: meanwhile the loop goes on

    async def open_stream(self, *_: object, **__: object) -> "Wire":
        return self

    def server_ms(self) -> float:
        return 0.0


async def test_a_command_whose_session_has_ended_drives_nothing(tmp_path: Path) -> None:
    async with Ground(tmp_path) as ground:
        wire = Wire()
        config = StreamConfig(direction="inbound", devices=["up"])
        up = {"up": ground.devices["up"]}
        stream = stream_of(ground, SPEC, config, up)
        await stream.attach(wire, actor(ALICE), ["orders"], announced=False)
        wire.send("first")
        await until_async(lambda: Relay.told)
        moved = len(Relay.told)
        background = stream._input._background
        known = len(background)
        wire.send("second")
        while len(background) == known:  # noqa: ASYNC110 - up to the very step in which the command is taken in
            await asyncio.sleep(0)
        await stream.detach("t1", end=True)
        assert len(Relay.told) == moved
        assert not background.failures


class Console:
    """A device with a bytes side; some input does it no good."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.reload: Callable[[], None] = lambda: None

    async def send_bytes(self, data: bytes) -> None:
        self.received.append(data)
        if data == b"bug":
            raise ValueError("a bug")
        if data == b"reload":
            self.reload()


async def test_a_fault_or_a_reload_ends_no_stream(tmp_path: Path) -> None:
    async with Ground(tmp_path) as ground:
        wire, console = Wire(), Console()
        spec = StreamSpec("console", "t1-1", "inbound", "bytes", "dedicated")
        config = StreamConfig(direction="inbound", format="bytes", devices=["up"])
        up: Any = {"up": console}
        stream = stream_of(ground, spec, config, up)
        console.reload = lambda: stream.replace("up", up["up"])
        await stream.attach(wire, actor(ALICE), ["console"], announced=False)
        for data in (b"bug", b"reload", b"after"):
            wire.send_bytes(data)
        await until_async(lambda: console.received[-1:] == [b"after"])
        assert console.received == [b"bug", b"reload", b"after"]
        await stream.detach("t1", end=True)


class ListQueue:
    """A queue that keeps the events put into it."""

    channel = "telemetry"

    def __init__(self) -> None:
        self.events: list[EventDraft] = []

    def append(self, draft: EventDraft) -> bool:
        self.events.append(draft)
        return True


async def test_a_session_that_ends_without_a_network_leaves_the_others_their_readings(tmp_path: Path) -> None:
    """Two sessions wait for the network to open their shared stream again; the time of one is over."""
    async with Ground(tmp_path) as ground:
        subscriptions, queue, shared = StreamSubscriptions(ground.clock), ListQueue(), SharedSessionStreams()
        spec = StreamSpec("telemetry", "telemetry", "outbound", "events", "shared")
        config = StreamConfig(direction="outbound", affinity="shared", devices=["up"])

        def make(former: dict[Caller, Former]) -> SessionStream:
            up: Any = {"up": ground.devices["up"]}
            return stream_of(ground, spec, config, up, queue=queue, subscriptions=subscriptions)

        stream = shared.get("telemetry", "t1", make)
        assert shared.get("telemetry", "t2", make) is stream
        stream.collect()
        await stream.detach("t1", end=True)
        subscriptions.on_readings([Reading("up", 0, {"on": True})])
        assert len(queue.events) == 1
        await stream.detach("t2", end=True)
        subscriptions.on_readings([Reading("up", 0, {"on": False}, monotonic_s=100.0)])
        assert len(queue.events) == 1
        assert shared.get("telemetry", "t3", make) is not stream, "its devices may be others by now"
