"""The writer of one stream: one number in flight, the same number and content until it is accepted.

A reader skips a missing number after 750 ms and drops it when it comes, so publishing n+1 before n loses n
(docs/protocol.md). Throughput comes from fuller messages: the parts of one group share a number and go out
together.
"""

import asyncio

import structlog

from device_agent.clock import Clock, TokenBucket
from device_agent.errors import NetworkError, Refused, TokenRefused
from device_agent.network import MessageSource, OutgoingMessage
from device_agent.network.blocks.messages import PARTS_MAX, encode, end_of_stream, items_limit_bytes
from device_agent.network.blocks.pubsub import PUBLISH_LIMIT_S
from device_agent.network.blocks.stream_channel import StreamChannel
from device_agent.network.connectivity import Connectivity, NetworkBackoff

log = structlog.get_logger("stream")

# A reader forgets the parts of an unfinished group after 30 s; older ones are all sent again.
GROUP_FRESH_S = 25.0
END_TRIES = 3
# A message is given up soon, as its connection may be dead, and then has twice the time at each try, up to
# what the slowest link takes for it.
SLOWEST_BYTES_PER_S = 500
TIME_LIMIT_S = 5.0


class PublishPace:
    """Messages a second on one channel; after a rest, as many as fit in a second may go at once.

    `rate_hz` of 0 or less is no limit.
    """

    def __init__(self, rate_hz: float, clock: Clock) -> None:
        self._bucket = TokenBucket(rate_hz, rate_hz, clock) if rate_hz > 0 else None

    async def allowed(self, most: int) -> int:
        """Wait until a message may go; how many may, at most `most`."""
        if self._bucket is None:
            return most
        if (wait_s := self._bucket.wait_s()) > 0:
            await asyncio.sleep(wait_s)
        return max(1, min(most, int(self._bucket.left)))

    def spend(self, count: int) -> None:
        """So many go now."""
        if self._bucket is not None:
            self._bucket.spend(count)


class StreamWriter:
    """Sends what a source holds. `run` ends when the source is closed and empty."""

    def __init__(
        self,
        channel: StreamChannel,
        source: MessageSource,
        pace: PublishPace,
        connectivity: Connectivity,
        clock: Clock,
    ) -> None:
        self._channel = channel
        self._source = source
        self._pace = pace
        self._connectivity = connectivity
        self._clock = clock
        self._backoff = NetworkBackoff(connectivity)

    async def run(self) -> None:
        """Publish until the source is closed and empty."""
        await self._learn_the_time()
        while True:
            await self._source.until_ready()
            # Waited for first: the message has all that comes until it goes.
            allowed = await self._pace.allowed(PARTS_MAX)
            parts = allowed if self._source.pending_bytes > items_limit_bytes(1) else 1
            limit_bytes = min(items_limit_bytes(parts), self._connectivity.message_size.limit_bytes)
            message = self._source.next_message(limit_bytes)
            if message is not None:
                await self._publish(message)
                self._source.ack(message)
            elif self._source.closed:
                return

    async def _learn_the_time(self) -> None:
        """Events from before the clock was set get their time before they go out: the network knows it."""
        while not self._clock.is_set():
            try:
                await self._channel.ping(TIME_LIMIT_S)
                break  # if it does not know a true time either, the events say that they have none
            except Refused:
                break
            except NetworkError as error:
                await self._backoff.wait(error)
        self._backoff.reset()

    async def end(self) -> None:
        """Publish that nothing more comes. Readers also see it by the task's end, so a few tries suffice."""
        stream_id = self._channel.spec.stream_id
        body = end_of_stream(stream_id, self._source.next_number, self._clock.now_ms())
        for _ in range(END_TRIES):
            try:
                await self._channel.publish(body)
                return
            except TokenRefused:
                return
            except NetworkError as error:
                await self._backoff.wait(error)

    async def _publish(self, message: OutgoingMessage) -> None:
        texts = encode(self._channel.spec.stream_id, self._channel.spec.format, message)
        self._pace.spend(len(texts))
        left, begun_s, limit_s = texts, self._clock.monotonic_s(), PUBLISH_LIMIT_S
        longest_s = PUBLISH_LIMIT_S + sum(map(len, texts)) / SLOWEST_BYTES_PER_S
        while left:
            with self._connectivity.message_size.sending(sum(map(len, left))) as sending:
                failures = await self._send(left, limit_s)
                sending.accepted = not failures
            left, limit_s = list(failures), min(2 * limit_s, longest_s)
            if failures:
                await self._wait_after(next(iter(failures.values())))
            now_s = self._clock.monotonic_s()
            if len(texts) > 1 and now_s - begun_s > GROUP_FRESH_S:
                left, begun_s = texts, now_s
        self._backoff.reset()

    async def _send(self, texts: list[bytes], limit_s: float) -> dict[bytes, NetworkError]:
        """Publish these at once; those that were not accepted, and why."""
        tries = [self._try(text, limit_s) for text in texts]
        outcomes = await asyncio.gather(*tries) if len(tries) > 1 else [await tries[0]]
        return {text: error for text, error in zip(texts, outcomes, strict=True) if error is not None}

    async def _try(self, text: bytes, limit_s: float) -> NetworkError | None:
        """A publish from before the link was lost is given up: the same message goes again at once."""
        publishing = self._channel.publish(text, limit_s)
        try:
            await self._connectivity.completed(f"publish to {self._channel.name}", publishing)
        except NetworkError as error:
            return error
        return None

    async def _wait_after(self, error: NetworkError) -> None:
        """Renews the token or waits; the message stays the same."""
        if isinstance(error, TokenRefused):
            try:
                await self._channel.renew_token()
            except NetworkError as refused:
                log.warning("stream_token_not_renewed", stream=self._channel.spec.name, error=str(refused))
                error = refused
        await self._backoff.wait(error)
