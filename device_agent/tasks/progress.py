"""How far a request has come: a sentence a second at most, and a stream where its caller asked for one."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from device_agent.clock import Clock
from device_agent.errors import NetworkError
from device_agent.messages import events
from device_agent.messages.requests import PROGRESS_STREAM
from device_agent.network import Stream, StreamSpec, TaskLink
from device_agent.store.outbox.channel_queue import ChannelQueue
from device_agent.store.outbox.outbox import Outbox

log = structlog.get_logger("progress")

INTERVAL_S = 1.0
# Work that says nothing of itself is spoken of after a second, and then this often.
STILL_S = 5.0
OPEN_LIMIT_S = 15.0
CLOSE_LIMIT_S = 15.0


class Progress:
    """`open` before the work, `close` before the terminal."""

    def __init__(self, link: TaskLink, outbox: Outbox, clock: Clock, stream_id: str) -> None:
        self._link = link
        self._outbox = outbox
        self._clock = clock
        self._spec = StreamSpec(PROGRESS_STREAM, stream_id, "outbound", "events", "dedicated")
        self._lane: ChannelQueue | None = None
        self._stream: Stream | None = None
        self._said_s = float("-inf")

    async def open(self) -> None:
        """Where the caller asked for a stream. Without one the work goes on all the same."""
        if not self._link.start.has_stream:
            return
        lane = await self._outbox.open(self._spec.stream_id, "events", "drop-oldest")
        try:
            async with asyncio.timeout(OPEN_LIMIT_S):
                self._stream = await self._link.open_stream(self._spec, lane)
        except (NetworkError, TimeoutError) as error:
            log.warning("progress_stream_not_opened", task=self._link.start.task_id, error=str(error))
        finally:
            if self._stream is None:
                self._outbox.forget(self._spec.stream_id)
            else:
                self._lane = lane

    async def close(self) -> None:
        if self._lane is None or self._stream is None:
            return
        self._lane.close()
        try:
            async with asyncio.timeout(CLOSE_LIMIT_S):
                await self._stream.close(end=True)
        except (NetworkError, TimeoutError) as error:
            log.info("progress_stream_not_closed", task=self._link.start.task_id, error=str(error))
        self._outbox.forget(self._spec.stream_id)
        self._lane = None

    def say(self, message: str, share: float | None = None, *, last: bool = False) -> None:
        """A sentence; what comes within a second of the one before is left out, but not the last."""
        now_s = self._clock.monotonic_s()
        if now_s - self._said_s < INTERVAL_S and not last:
            return
        self._said_s = now_s
        if not last:
            self._link.progress(message)
        if self._lane is not None:
            self._lane.append(events.progress(self._clock.now_ms(), message, share))

    @contextmanager
    def during(self, what: str) -> Iterator[None]:
        """Work that cannot tell how far it is: said when it takes longer than a second."""
        telling = asyncio.ensure_future(self._tell(what))
        try:
            yield
        finally:
            telling.cancel()

    async def _tell(self, what: str) -> None:
        began_s = self._clock.monotonic_s()
        await asyncio.sleep(INTERVAL_S)
        self.say(what)
        while True:
            await asyncio.sleep(STILL_S)
            self.say(f"{what}, since {self._clock.monotonic_s() - began_s:.0f} s")
