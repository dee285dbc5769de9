"""What happened: every publish by channel, every request, and who waits to see one. All bounded."""

from __future__ import annotations

import asyncio
import fnmatch
import json
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from device_agent.testing.network.settings import Settings

_RECORD_OVERHEAD_BYTES = 400


@dataclass(slots=True)
class PublishRecord:
    """One publish. ``status`` is the HTTP answer: 200, or what it was refused with (403 for a setup)."""

    at_s: float
    timetoken: int
    environment: str
    channel: str
    uuid: str
    token_kind: str
    meta: Any
    raw: str
    stored: bool
    status: int

    @property
    def body(self) -> Any:
        """The message, decoded from its JSON."""
        return json.loads(self.raw)


@dataclass(slots=True)
class RequestRecord:
    """One request. ``status`` 0 means that it got no whole answer; ``fault`` says by which fault."""

    at_s: float
    method: str
    path: str
    status: int
    uuid: str
    link: str
    fault: str


class Records:
    """The memory of the stand-in. It may be read from another thread than the one that fills it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._by_channel: OrderedDict[str, deque[PublishRecord]] = OrderedDict()
        self._order: deque[PublishRecord] = deque()
        self._bytes = 0
        self.requests: deque[RequestRecord] = deque(maxlen=settings.request_record_length)
        self.counts: Counter[str] = Counter()
        self._watchers: list[asyncio.Event] = []

    def published(self, record: PublishRecord) -> None:
        """Keep a publish; the oldest go when the byte limit is reached."""
        channel = self._by_channel.get(record.channel)
        if channel is None:
            channel = self._by_channel[record.channel] = deque(maxlen=self._settings.record_length)
            if len(self._by_channel) > self._settings.max_channels:
                self.counts.pop(self._by_channel.popitem(last=False)[0], None)
        channel.append(record)
        self._order.append(record)
        if record.status == 200:
            self.counts[record.channel] += 1
        self._bytes += len(record.raw) + _RECORD_OVERHEAD_BYTES
        while self._bytes > self._settings.record_bytes:
            self._forget()
        self.notify()

    def publishes(self, channel: str | None = None, *, refused: bool = False) -> list[PublishRecord]:
        """Publishes of one channel or of all, in order; ``refused`` adds those that were not accepted."""
        if channel is not None:
            records = list(self._by_channel.get(channel, ()))
        else:
            records = [r for held in list(self._by_channel.values()) for r in list(held)]
            records.sort(key=lambda r: r.timetoken)
        return records if refused else [r for r in records if r.status == 200]

    def requested(self, record: RequestRecord) -> None:
        """Keep a request."""
        self.requests.append(record)
        self.notify()

    def notify(self) -> None:
        """Wake all that wait for a condition."""
        if self._watchers:
            for event in self._watchers:
                event.set()

    def requests_of(self, path: str) -> list[RequestRecord]:
        """Requests whose path matches a pattern with ``*``."""
        return [r for r in list(self.requests) if fnmatch.fnmatchcase(r.path, path)]

    async def wait_for(self, condition: Callable[[], Any], timeout_s: float) -> Any:
        """Wait until the condition is true and return its value; TimeoutError after ``timeout_s``."""
        event = asyncio.Event()
        self._watchers.append(event)
        deadline = time.monotonic() + timeout_s
        try:
            while not (value := condition()):
                event.clear()
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"not so within {timeout_s} s")
                # Conditions may depend on clocks too, so they are checked at least this often.
                try:
                    await asyncio.wait_for(event.wait(), min(left, 0.05))
                except TimeoutError:
                    continue
            return value
        finally:
            self._watchers.remove(event)

    def clear(self) -> None:
        """Forget publishes, counts and requests."""
        self._by_channel.clear()
        self._order.clear()
        self._bytes = 0
        self.requests.clear()
        self.counts.clear()

    def _forget(self) -> None:
        oldest = self._order.popleft()
        self._bytes -= len(oldest.raw) + _RECORD_OVERHEAD_BYTES
        held = self._by_channel.get(oldest.channel)
        if held and held[0] is oldest:
            held.popleft()
