"""An open stream of a task: its writer, its reader, and its end (docs/protocol.md)."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import structlog

from device_agent.background import BackgroundTasks, Turns, first_of
from device_agent.clock import Clock
from device_agent.errors import NetworkError, ProtocolFault, TokenRefused
from device_agent.network import Inbound, MessageSource, Unreadable
from device_agent.network.blocks.long_poll import Batch, Delivery
from device_agent.network.blocks.messages import StreamReader
from device_agent.network.blocks.stream_channel import StreamChannel
from device_agent.network.blocks.writer import PublishPace, StreamWriter
from device_agent.network.connectivity import Connectivity, NetworkBackoff

log = structlog.get_logger("stream")

# The caller subscribes after it has seen stream_started, and first gets what the network caches: the last 100
# messages. A short wait keeps a flood from passing that by; the official writer waits 1 s.
SUBSCRIBE_GRACE_S = 0.3
# A silent long-poll is abandoned and begun again this often, so that a dead connection is noticed.
POLL_LIMIT_S = 20.0
# From the oldest message that the network caches: the reader may start after the caller has begun to send.
FROM_CACHE = "1000"
FROM_NOW = "0"
INBOUND_MAX = 1000
END_LIMIT_S = 5.0


class OpenStream:
    """One open stream. `start` begins to read and to write."""

    def __init__(
        self, channel: StreamChannel, connectivity: Connectivity, clock: Clock, background: BackgroundTasks
    ) -> None:
        self.channel = channel
        self.spec = channel.spec
        self._connectivity = connectivity
        self._clock = clock
        self._background = background
        self._tasks: list[asyncio.Task[Any]] = []
        self._writer: StreamWriter | None = None
        self._writing: asyncio.Task[None] | None = None
        self._queue: asyncio.Queue[Inbound | None] = asyncio.Queue(INBOUND_MAX)
        self._position = FROM_CACHE
        self._unreadable = 0

    def start(self, source: MessageSource | None, rate_hz: float, *, resumed: bool) -> None:
        """Begin reading at once, and writing after the caller had time to subscribe.

        `resumed`: an earlier process opened the stream, and the network delivers again what that has read.
        Commands have an id, by which they are recognised; bytes have none, so they are read from now on only.
        """
        spec = self.spec
        if resumed and spec.format == "bytes":
            self._position = FROM_NOW
        if spec.direction != "outbound":
            self._tasks.append(self._background.run_forever(f"reader {spec.name}", self._read))
        if source is not None and spec.direction != "inbound":
            pace = PublishPace(rate_hz, self._clock)
            self._writer = StreamWriter(self.channel, source, pace, self._connectivity, self._clock)
            begin_s = self._clock.monotonic_s() + (0.0 if resumed else SUBSCRIBE_GRACE_S)
            self._writing = self._background.run_forever(f"writer {spec.name}", lambda: self._write(begin_s))
            proof = self._background.run_forever(f"proof {spec.name}", self._prove_outward)
            self._tasks += self._writing, proof

    def silent_s(self, within_s: float) -> float:
        """See `network.Stream`."""
        return self.channel.silent_s(within_s)

    async def _write(self, begin_s: float) -> None:
        assert self._writer is not None
        await asyncio.sleep(max(0.0, begin_s - self._clock.monotonic_s()))
        await self._writer.run()

    async def inbound(self) -> AsyncIterator[Inbound]:
        while (item := await self._queue.get()) is not None:
            yield item

    async def _read(self) -> None:
        reader = StreamReader(self.spec.stream_id, self.spec.format)
        backoff = NetworkBackoff(self._connectivity)
        region: str | None = None
        turns = Turns()
        while True:
            try:
                batch = await self._poll(region)
            except TokenRefused as refused:
                await self._renew_or_wait(refused, backoff)
                continue
            except NetworkError as error:
                await backoff.wait(error)
                continue
            backoff.reset()
            if batch is not None:
                # First of all: no message is read twice, whatever comes of it.
                self._position, region = batch.timetoken, batch.region
                for delivery in batch.deliveries:
                    for item in self._items(reader, delivery):
                        await self._queue.put(item)
                    await turns.give()

    async def _poll(self, region: str | None) -> Batch | None:
        """One long-poll; None when it brought nothing, or the way in was proven meanwhile: the connection of
        one that is silent may be dead."""
        while self.channel.inward.is_due:
            await self._connectivity.unless_back(self.channel.prove_inward())
        request = self.channel.subscribe(self._position, region, POLL_LIMIT_S)
        ended = await first_of(self._connectivity.unless_back(request), self._prove_in_time())
        batch: Batch | None
        batch, *_ = (one.result() for one in ended if one is not None)
        return batch

    async def _prove_in_time(self) -> None:
        """Beside the long-poll, which a slow link answers no sooner than this."""
        await self.channel.inward.due.wait()
        await self._connectivity.unless_back(self.channel.prove_inward())

    async def _prove_outward(self) -> None:
        """When nothing was published for a while, and when that failed until it works."""
        backoff = NetworkBackoff(self._connectivity)
        while True:
            if not self.channel.outward.is_due:
                await self.channel.outward.due.wait()
            try:
                await self._connectivity.unless_back(self.channel.prove_outward(self._clock.now_ms()))
                backoff.reset()
            except TokenRefused as refused:
                await self._renew_or_wait(refused, backoff)
            except NetworkError as error:
                await backoff.wait(error)

    def _items(self, reader: StreamReader, delivery: Delivery) -> list[Inbound]:
        """What a message brings; one that cannot be read costs itself only, and is answered."""
        sender = str(delivery.meta.get("sender") or delivery.publisher)
        try:
            return reader.feed(delivery.payload, delivery.sent_ms, sender, self._clock.monotonic_s())
        except ProtocolFault as fault:
            why = str(fault)
        except Exception as error:
            why = f"stream message cannot be read ({type(error).__name__})"
            log.exception("stream_message_failed", stream=self.spec.name)
        self._unreadable += 1
        if self._unreadable == 1 or self._unreadable % 1000 == 0:
            log.warning("stream_message_ignored", stream=self.spec.name, error=why, count=self._unreadable)
        return [Inbound(Unreadable(why), delivery.sent_ms, sender)]

    async def _renew_or_wait(self, refused: TokenRefused, backoff: NetworkBackoff) -> None:
        try:
            await self.channel.renew_token()
        except NetworkError as error:
            log.warning("stream_token_not_renewed", stream=self.spec.name, error=str(error))
            await backoff.wait(refused)

    async def close(self, *, end: bool) -> None:
        """Stop reading and writing. With `end`, what waits is sent first, for at most 5 s."""
        if (
            end
            and self._writer is not None
            and self._writing is not None
            and self.spec.affinity == "dedicated"
        ):
            try:
                async with asyncio.timeout(END_LIMIT_S):
                    await asyncio.wait([self._writing])
                    await self._writer.end()
            except TimeoutError:
                log.info("stream_end_not_sent", stream=self.spec.name)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=END_LIMIT_S)
        self.channel.close()
        while self._queue.full():
            self._queue.get_nowait()
        self._queue.put_nowait(None)
