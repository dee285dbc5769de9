"""The writer of one stream channel: one number in flight, the same number and content until it is accepted.

A reader skips a missing number after 750 ms and drops it when it comes, so publishing n+1 before n loses n
(protocol 11.6). Throughput comes from fuller messages: parts of one group share a number and go out together.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from device_agent.clock import Clock
from device_agent.errors import NetworkError, Refused, TokenRefused, Unreachable
from device_agent.network import MessageSource, OutgoingMessage, StreamSpec
from device_agent.network.blocks.messages import (
    PARTS_MAX,
    encode,
    end_of_stream,
    items_limit_bytes,
    stream_meta,
)
from device_agent.network.blocks.pubsub import PubSubClient
from device_agent.network.connectivity import Connectivity, NetworkBackoff

log = structlog.get_logger("stream")

# A reader forgets the parts of an unfinished group after 30 s; older ones are all sent again.
GROUP_FRESH_S = 20.0
# Parts of one group under way at once (the official writer's own figure).
PARTS_IN_FLIGHT = 8
END_TRIES = 3
TIME_LIMIT_S = 5.0


class PublishPace:
    """Messages a second on one channel, with a second's worth of credit for a burst after a rest."""

    def __init__(self, rate_hz: float, clock: Clock) -> None:
        self._rate_hz = rate_hz
        self._clock = clock
        self._credit = rate_hz
        self._at_s = clock.monotonic_s()

    def allowed(self, most: int) -> int:
        """How many messages may go now, at least 1 and at most `most`."""
        if self._rate_hz <= 0:
            return most
        self._refill()
        return max(1, min(most, int(self._credit)))

    async def take(self, count: int) -> None:
        """Wait until `count` messages may go."""
        if self._rate_hz <= 0:
            return
        self._refill()
        self._credit -= count
        if self._credit < 0:
            await asyncio.sleep(-self._credit / self._rate_hz)

    def _refill(self) -> None:
        now_s = self._clock.monotonic_s()
        self._credit = min(self._rate_hz, self._credit + (now_s - self._at_s) * self._rate_hz)
        self._at_s = now_s


class StreamWriter:
    """Sends what a source holds. `run` ends when the source is closed and empty."""

    def __init__(
        self,
        spec: StreamSpec,
        channel: str,
        client: PubSubClient,
        source: MessageSource,
        *,
        connectivity: Connectivity,
        clock: Clock,
        rate_hz: float,
        renew: Callable[[], Awaitable[None]],
    ) -> None:
        self._spec = spec
        self._channel = channel
        self._client = client
        self._source = source
        self._clock = clock
        self._pace = PublishPace(rate_hz, clock)
        self._connectivity = connectivity
        self._backoff = NetworkBackoff(connectivity)
        self._renew = renew

    async def run(self) -> None:
        """Publish until the source is closed and empty."""
        await self._know_the_time()
        while True:
            await self._source.until_ready()
            parts = self._pace.allowed(PARTS_MAX) if self._source.pending_bytes > items_limit_bytes(1) else 1
            message = self._source.next_message(items_limit_bytes(parts))
            if message is None:
                if self._source.closed:
                    return
                continue
            await self._publish(message)
            self._source.ack(message)

    async def _know_the_time(self) -> None:
        """What was made before the time was known gets it before it goes out: the network knows it."""
        while not self._clock.is_set():
            try:
                await self._client.ping(TIME_LIMIT_S)
                break  # if it does not know a true time either, the events say that they have none
            except Refused:
                break
            except NetworkError as error:
                await self._backoff.wait(error)
        self._backoff.reset()

    async def end(self, next_number: int) -> None:
        """Tell readers that nothing more comes; they also see it by the task's end, so a few tries do."""
        body = end_of_stream(self._spec.stream_id, next_number, self._clock.now_ms())
        for _ in range(END_TRIES):
            try:
                await self._client.publish(
                    self._channel, body, store=False, meta=stream_meta(self._client.uuid)
                )
                return
            except TokenRefused:
                return
            except NetworkError as error:
                await self._backoff.wait(error)

    async def _publish(self, message: OutgoingMessage) -> None:
        texts = encode(self._spec.stream_id, self._spec.format, message)
        left = list(texts)
        begun_s = self._clock.monotonic_s()
        await self._pace.take(len(left))
        while True:
            outcomes: list[BaseException | int] = []
            for start in range(0, len(left), PARTS_IN_FLIGHT):
                group = left[start : start + PARTS_IN_FLIGHT]
                outcomes += await asyncio.gather(*map(self._send, group), return_exceptions=True)
            errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
            if not errors:
                self._backoff.reset()
                return
            for error in errors:
                if not isinstance(error, NetworkError):
                    raise error
            pairs = zip(left, outcomes, strict=True)
            left = [text for text, outcome in pairs if isinstance(outcome, BaseException)]
            await self._recover(errors[0])
            if self._clock.monotonic_s() - begun_s > GROUP_FRESH_S:
                left, begun_s = list(texts), self._clock.monotonic_s()

    async def _send(self, text: bytes) -> int:
        """A publish that hangs when the link comes back is given up: the same message goes again at once."""
        publish = self._client.publish(self._channel, text, store=False, meta=stream_meta(self._client.uuid))
        timetoken = await self._connectivity.unless_back(publish)
        if timetoken is None:
            raise Unreachable(f"publish to {self._channel}: the link was lost while it was under way")
        return timetoken

    async def _recover(self, error: BaseException) -> None:
        """Only waits and renews; the message stays the same."""
        if isinstance(error, TokenRefused):
            try:
                await self._renew()
            except NetworkError as refused:
                log.warning("stream_token_not_renewed", stream=self._spec.name, error=str(refused))
                await self._backoff.wait(refused)
                return
        await self._backoff.wait(error)
