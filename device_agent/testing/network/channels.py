"""Channels of one key set: memory queue, stored history, and the long-polls that wait (protocol 7)."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from json import dumps, loads
from typing import Any

from device_agent.testing.network.clock import Clock
from device_agent.testing.network.filters import Filter
from device_agent.testing.network.settings import Settings


class Message:
    """One published message; its JSON is kept as it came and goes out the same."""

    __slots__ = ("channel", "meta", "meta_raw", "raw", "timetoken", "uuid", "wire")

    def __init__(self, channel: str, raw: str, uuid: str, meta_raw: str, meta: Any, timetoken: int) -> None:
        self.channel = channel
        self.raw = raw
        self.uuid = uuid
        self.meta_raw = meta_raw
        self.meta = meta
        self.timetoken = timetoken
        self.wire = ""

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

    __slots__ = ("polls", "queue", "stored")

    def __init__(self, queue_length: int, history_length: int) -> None:
        self.queue: deque[Message] = deque(maxlen=queue_length)
        self.stored: deque[Message] = deque(maxlen=history_length)
        self.polls: set[Poll] = set()


class Poll:
    """A subscribe request that waits. ``silenced`` means a fault has cut its link: it is never answered."""

    __slots__ = ("channels", "cursor", "link", "path", "silenced", "token", "uuid", "wanted", "woken")

    def __init__(
        self, channels: list[str], cursor: int, wanted: Filter | None, uuid: str, token: str
    ) -> None:
        self.channels = channels
        self.cursor = cursor
        self.wanted = wanted
        self.uuid = uuid
        self.token = token
        self.path = ""
        self.link = ""
        self.silenced = False
        self.woken: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """Let the request look again."""
        if self.woken is not None and not self.woken.done():
            self.woken.set_result(None)


class Hub:
    """All channels of one key set."""

    def __init__(self, environment: str, subscribe_key: str, clock: Clock, settings: Settings) -> None:
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

    def publish(self, name: str, raw: str, uuid: str, meta_raw: str, meta: Any, store: bool) -> Message:
        """Put a message on a channel and wake its waiting polls."""
        message = Message(name, raw, uuid, meta_raw, meta, self._clock.timetoken())
        channel = self.channel(name)
        channel.queue.append(message)
        if store:
            channel.stored.append(message)
        for poll in channel.polls:
            poll.wake()
        return message

    async def wait(
        self, poll: Poll, hold_s: float, allowed: Callable[[], object]
    ) -> tuple[int, list[Message]]:
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

    def _collect(self, poll: Poll, channels: list[Channel]) -> list[Message]:
        cursor = poll.cursor
        fresh: list[Message] = []
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
        found: list[Message] = []
        for message in fresh:
            if len(found) == limit:
                break
            poll.cursor = message.timetoken
            if wanted is None or wanted(message.meta, message.body):
                found.append(message)
        return found

    def history(self, name: str, count: int, start: int | None, end: int | None) -> list[Message]:
        """The newest stored messages before ``start`` (exclusive) and not before ``end``, oldest first."""
        channel = self._channels.get(name)
        if channel is None:
            return []
        page: list[Message] = []
        for message in reversed(channel.stored):
            if end is not None and message.timetoken < end:
                break
            if start is None or message.timetoken < start:
                page.append(message)
                if len(page) == count:
                    break
        page.reverse()
        return page
