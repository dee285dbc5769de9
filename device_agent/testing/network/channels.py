"""The messaging plane below HTTP: timetokens, channels, presence, both key sets (docs/protocol.md)."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from json import loads
from typing import Any

from device_agent.testing.network.filters import Filter
from device_agent.testing.network.http import HttpError, dumps
from device_agent.testing.network.records import PublishRecord, Records
from device_agent.testing.network.settings import BACKEND_UUID, KEY_SETS, PROTOCOL_VERSION, Settings


class TimetokenClock:
    """Gives strictly rising timetokens, so that a cursor never skips a message of the same instant."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = 0

    def timetoken(self) -> int:
        """The next timetoken."""
        now = time.time_ns() // 100
        last = self._last
        self._last = now = now if now > last else last + 1
        return now


def now_ms() -> int:
    """Epoch milliseconds."""
    return time.time_ns() // 1_000_000


@dataclass(slots=True, eq=False)
class PublishedMessage:
    """One published message; its JSON is kept as it came and goes out the same."""

    channel: str
    raw: str
    uuid: str
    timetoken: int
    meta_raw: str = ""
    meta: Any = None
    store: bool = False
    token_kind: str = "backend"
    wire: str = ""

    def body(self) -> Any:
        """The message, decoded; only filters need it."""
        return loads(self.raw)

    def envelope(self, subscribe_key: str) -> str:
        """The subscribe answer's element for this message."""
        if not self.wire:
            meta = f',"u":{self.meta_raw}' if self.meta_raw else ""
            channel = dumps(self.channel)
            self.wire = (
                f'{{"a":"0","c":{channel},"b":{channel},"d":{self.raw},"f":0,"i":{dumps(self.uuid)},'
                f'"k":"{subscribe_key}","p":{{"t":"{self.timetoken}","r":1}}{meta},"e":0}}'
            )
        return self.wire


class Channel:
    """One channel's memory."""

    def __init__(self, queue_length: int, history_length: int) -> None:
        self.queue: deque[PublishedMessage] = deque(maxlen=queue_length)
        self.stored: deque[PublishedMessage] = deque(maxlen=history_length)
        self.polls: set[Poll] = set()


@dataclass(slots=True, eq=False)
class Poll:
    """A subscribe request that waits. ``silenced`` means a fault has cut its link: it is never answered."""

    channels: list[str]
    cursor: int
    wanted: Filter | None
    uuid: str
    token: str
    path: str
    link: str
    silenced: bool = False
    woken: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """Let the request check for messages again."""
        if self.woken is not None and not self.woken.done():
            self.woken.set_result(None)


class Hub:
    """All channels of one key set."""

    def __init__(
        self, environment: str, subscribe_key: str, clock: TimetokenClock, settings: Settings
    ) -> None:
        self.environment = environment
        self.subscribe_key = subscribe_key
        self._clock = clock
        self._settings = settings
        self._channels: OrderedDict[str, Channel] = OrderedDict()
        self.polls: set[Poll] = set()

    def channel(self, name: str) -> Channel:
        """The channel, made if it is new; the oldest idle one goes when there are too many."""
        found = self._channels.get(name)
        if found is None:
            found = Channel(self._settings.queue_length, self._settings.history_length)
            self._channels[name] = found
            if len(self._channels) > self._settings.max_channels:
                idle = next((n for n, c in self._channels.items() if not c.polls and n != name), None)
                if idle is not None:
                    del self._channels[idle]
        return found

    def publish(self, message: PublishedMessage) -> None:
        """Put a message on its channel and wake the polls that wait there."""
        channel = self.channel(message.channel)
        channel.queue.append(message)
        if message.store:
            channel.stored.append(message)
        for poll in channel.polls:
            poll.wake()

    async def wait(
        self, poll: Poll, hold_s: float, allowed: Callable[[], object]
    ) -> tuple[int, list[PublishedMessage]]:
        """Messages newer than the poll's cursor, at once or as soon as there are some; next cursor first.

        ``allowed`` is called after every waiting and raises when the poll's token was revoked meanwhile.
        """
        deadline = time.monotonic() + hold_s
        loop = asyncio.get_running_loop()
        channels = [self.channel(name) for name in poll.channels]
        for channel in channels:
            channel.polls.add(poll)
        self.polls.add(poll)
        try:
            while True:
                if not poll.silenced:
                    found = self._collect(poll, channels)
                    left = deadline - time.monotonic()
                    if found or left <= 0:
                        return poll.cursor, found
                poll.woken = loop.create_future()
                timer = None if poll.silenced else loop.call_later(left, poll.wake)
                try:
                    await poll.woken
                finally:
                    if timer is not None:
                        timer.cancel()
                if not poll.silenced:
                    allowed()
        finally:
            self.polls.discard(poll)
            for channel in channels:
                channel.polls.discard(poll)

    def _collect(self, poll: Poll, channels: list[Channel]) -> list[PublishedMessage]:
        cursor = poll.cursor
        fresh: list[PublishedMessage] = []
        for channel in channels:
            for message in reversed(channel.queue):
                if message.timetoken <= cursor:
                    break
                fresh.append(message)
        if not fresh:
            poll.cursor = self._clock.timetoken()
            return fresh
        fresh.sort(key=lambda m: m.timetoken)
        limit = self._settings.queue_length
        wanted = poll.wanted
        found: list[PublishedMessage] = []
        for message in fresh:
            if len(found) == limit:
                break
            poll.cursor = message.timetoken
            if wanted is None or wanted(message.meta, message.body):
                found.append(message)
        return found

    def history(self, name: str, count: int, start: int | None, end: int | None) -> list[PublishedMessage]:
        """The newest stored messages before ``start`` (exclusive) and not before ``end``, oldest first."""
        channel = self._channels.get(name)
        if channel is None:
            return []
        page: list[PublishedMessage] = []
        for message in reversed(channel.stored):
            if end is not None and message.timetoken < end:
                break
            if start is None or message.timetoken < start:
                page.append(message)
                if len(page) == count:
                    break
        page.reverse()
        return page


_MAX_OCCUPANTS = 1000
_MAX_PRESENCE_CHANNELS = 20_000


@dataclass(slots=True)
class Occupant:
    """One client on one channel. ``seen_s`` and ``joined_s`` are monotonic; ``joined_s`` 0: never there."""

    uuid: str
    joined_s: float
    seen_s: float
    timeout_s: float
    state: dict[str, Any] = field(default_factory=dict)

    @property
    def live(self) -> bool:
        """Whether it was seen within its timeout."""
        return time.monotonic() - self.seen_s < self.timeout_s


class Presence:
    """The presence table of one key set."""

    def __init__(self) -> None:
        self._channels: dict[str, dict[str, Occupant]] = {}

    def seen(self, channel: str, uuid: str, timeout_s: float) -> Occupant:
        """Note that the client is there: it joins or stays."""
        now = time.monotonic()
        occupants = self._channels.setdefault(channel, {})
        found = occupants.get(uuid)
        if found is None or (not found.live and found.joined_s):
            found = occupants[uuid] = Occupant(uuid, now, now, timeout_s)
        found.joined_s = found.joined_s or now
        found.seen_s = now
        found.timeout_s = timeout_s
        if len(occupants) > _MAX_OCCUPANTS or len(self._channels) > _MAX_PRESENCE_CHANNELS:
            self._sweep()
        return found

    def set_state(self, channel: str, uuid: str, state: dict[str, Any]) -> None:
        """Replace a client's state. It does not make the client present: only subscribe and heartbeat do."""
        occupants = self._channels.setdefault(channel, {})
        found = occupants.get(uuid)
        if found is None:
            found = occupants[uuid] = Occupant(uuid, 0.0, -math.inf, 0.0)
        found.state = state

    def leave(self, channel: str, uuid: str) -> None:
        """The client leaves."""
        occupants = self._channels.get(channel, {})
        occupants.pop(uuid, None)
        if not occupants:
            self._channels.pop(channel, None)

    def live(self, channel: str) -> list[Occupant]:
        """The live clients of a channel, in order of joining."""
        return [o for o in list(self._channels.get(channel, {}).values()) if o.live]

    def table(self) -> dict[str, list[dict[str, Any]]]:
        """Live clients of all channels."""
        now = time.monotonic()
        return {
            channel: [
                {
                    "uuid": o.uuid,
                    "state": o.state,
                    "seen_s_ago": round(now - o.seen_s, 3),
                    "timeout_s": o.timeout_s,
                }
                for o in found
            ]
            for channel in list(self._channels)
            if (found := self.live(channel))
        }

    def _sweep(self) -> None:
        """Forget who has lapsed, and the oldest channels if there are too many still."""
        self._channels = {c: {o.uuid: o for o in found} for c in self._channels if (found := self.live(c))}
        while len(self._channels) > _MAX_PRESENCE_CHANNELS // 2:
            del self._channels[next(iter(self._channels))]


TaskListener = Callable[[str, dict[str, Any], str], None]
"""Called with every message on a task channel: channel, body, publisher uuid."""


class Wire:
    """Both key sets with their channels and presence tables."""

    def __init__(self, settings: Settings, records: Records, listener: TaskListener) -> None:
        self.clock = TimetokenClock()
        self.records = records
        self.hubs = {name: Hub(name, keys[1], self.clock, settings) for name, keys in KEY_SETS.items()}
        self.presence = {name: Presence() for name in KEY_SETS}
        self._listener = listener
        self._by_key = {hub.subscribe_key: hub for hub in self.hubs.values()}
        self._publish_keys = {keys[1]: keys[0] for keys in KEY_SETS.values()}

    def hub(self, subscribe_key: str, publish_key: str | None = None) -> Hub:
        """The key set of a request, or 400."""
        found = self._by_key.get(subscribe_key)
        if found is None or publish_key not in (None, self._publish_keys[subscribe_key]):
            raise HttpError(
                400, {"status": 400, "message": "Invalid Key", "error": True, "service": "Access Manager"}
            )
        return found

    def publish(self, hub: Hub, message: PublishedMessage, body: Any) -> None:
        """Deliver a message, record it, and follow the task that it belongs to."""
        hub.publish(message)
        self.record(hub, message, 200)
        if message.channel.startswith("u.") and isinstance(body, dict):
            self._listener(message.channel, body, message.uuid)

    def record(self, hub: Hub, message: PublishedMessage, status: int) -> None:
        """Note a publish, accepted or not."""
        m = message
        self.records.published(
            PublishRecord(
                time.time(),
                m.timetoken,
                hub.environment,
                m.channel,
                m.uuid,
                m.token_kind,
                m.meta,
                m.raw,
                m.store,
                status,
            )
        )

    def send(self, environment: str, channel: str, body: Any, meta: Any, *, store: bool = False) -> int:
        """A publish of the backend itself; its timetoken."""
        meta_raw = dumps(meta) if meta is not None else ""
        timetoken = self.clock.timetoken()
        message = PublishedMessage(channel, dumps(body), BACKEND_UUID, timetoken, meta_raw, meta, store)
        self.publish(self.hubs[environment], message, body)
        return timetoken

    def send_event(self, environment: str, channel: str, agent_name: str, event: dict[str, Any]) -> int:
        """A task event of the backend, stored, with the meta of task events; its timetoken."""
        event = {**event, "protocolVersion": PROTOCOL_VERSION}
        meta = {
            "agentName": agent_name,
            "taskId": event.get("taskId"),
            "protocolVersion": PROTOCOL_VERSION,
        }
        return self.send(environment, channel, event, meta, store=True)

    def recheck(self) -> None:
        """Let every held long-poll check its token again."""
        for hub in self.hubs.values():
            for poll in list(hub.polls):
                poll.wake()
