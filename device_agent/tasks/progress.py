"""How far a request is: a sentence a second at most, and events on a stream if the caller asked for one."""

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
from device_agent.tasks.stream_scope import stream_id

log = structlog.get_logger("progress")

INTERVAL_S = 1.0
# Work that cannot tell how far it is, is reported after a second, and then this often.
STILL_S = 5.0
OPEN_LIMIT_S = 15.0
CLOSE_LIMIT_S = 15.0


class Progress:
    """`open` before the work, `close` before the terminal."""

    def __init__(self, link: TaskLink, outbox: Outbox, clock: Clock) -> None:
        self._link = link
        self._outbox = outbox
        self._clock = clock
        self._spec = StreamSpec(PROGRESS_STREAM, stream_id(link.start, 0), "outbound", "events", "dedicated")
        self._open: tuple[ChannelQueue, Stream] | None = None
        self._reported_s = float("-inf")

    async def open(self) -> None:
        """Open a stream if the caller asked for one; without it the work goes on all the same."""
        if not self._link.start.has_stream:
            return
        queue = await self._outbox.open(self._spec.stream_id, "events", "drop-oldest")
        try:
            async with asyncio.timeout(OPEN_LIMIT_S):
                self._open = queue, await self._link.open_stream(self._spec, queue)
        except (NetworkError, TimeoutError) as error:
            log.warning("progress_stream_not_opened", task=self._link.start.task_id, error=str(error))
        finally:
            if self._open is None:
                self._outbox.forget(self._spec.stream_id)

    async def close(self) -> None:
        if self._open is None:
            return
        queue, stream = self._open
        queue.close()
        try:
            async with asyncio.timeout(CLOSE_LIMIT_S):
                await stream.close(end=True)
        except (NetworkError, TimeoutError) as error:
            log.info("progress_stream_not_closed", task=self._link.start.task_id, error=str(error))
        self._outbox.forget(self._spec.stream_id)
        self._open = None

    def report(self, message: str, share: float | None = None, *, last: bool = False) -> None:
        """A sentence, and what is done of the work, 0 to 1. What comes within a second of the one before is
        left out, but not the last, which goes to the stream alone."""
        now_s = self._clock.monotonic_s()
        if now_s - self._reported_s < INTERVAL_S and not last:
            return
        self._reported_s = now_s
        if not last:
            self._link.progress(message)
        if self._open is not None:
            self._open[0].append(events.progress(self._clock.now_ms(), message, share))

    @contextmanager
    def during(self, what: str) -> Iterator[None]:
        """Work that cannot tell how far it is: reported once it takes longer than a second."""
        reporting = asyncio.ensure_future(self._keep_reporting(what))
        try:
            yield
        finally:
            reporting.cancel()

    async def _keep_reporting(self, what: str) -> None:
        began_s = self._clock.monotonic_s()
        await asyncio.sleep(INTERVAL_S)
        self.report(what)
        while True:
            await asyncio.sleep(STILL_S)
            self.report(f"{what}, since {self._clock.monotonic_s() - began_s:.0f} s")
