"""Streams of tasks: the setup handshake, reading, and closing (protocol section 11)."""

import asyncio
import zlib
from collections.abc import AsyncIterator
from typing import Any

import structlog

from device_agent.background import BackgroundTasks
from device_agent.clock import Clock
from device_agent.errors import NetworkError, ProtocolFault, Refused, TokenRefused
from device_agent.network import Inbound, MessageSource, StartTask, StreamSpec
from device_agent.network.blocks.http import error_of
from device_agent.network.blocks.messages import REORDER_WAIT_S, StreamReader
from device_agent.network.blocks.pubsub import PubSubClient
from device_agent.network.blocks.wire import PROTOCOL_VERSION, setup_channel, stream_channel
from device_agent.network.blocks.writer import StreamWriter
from device_agent.network.connectivity import Connectivity, NetworkBackoff

log = structlog.get_logger("stream")

# The caller subscribes after it has seen stream_started, and first gets what the network caches: the last 100
# messages. A moment's rest keeps a flood from passing that by; the official writer waits 1 s.
SUBSCRIBE_GRACE_S = 0.3
# A silent long-poll is abandoned and begun again this often, so that a dead connection is noticed.
POLL_LIMIT_S = 20.0
# Everything the network still caches of the caller's words: the reader joins after the caller may have begun.
FROM_CACHE = "1000"
FROM_NOW = "0"
INBOUND_MAX = 1000
# How long a setup that the service refuses is tried again before the task is told.
SETUP_REFUSED_LIMIT_S = 60.0
FINAL_CODES = frozenset({"InvalidArgument"})
END_LIMIT_S = 5.0


class StreamTokens:
    """Asks the setup function for a stream token, over the task's own token or the control client's."""

    def __init__(
        self,
        agent_name: str,
        start: StartTask,
        client: PubSubClient,
        fallback: PubSubClient,
        connectivity: Connectivity,
    ) -> None:
        self._agent_name = agent_name
        self._start = start
        self._clients = [client, fallback]
        self._connectivity = connectivity

    async def ask(self, spec: StreamSpec, phase: str) -> str:
        """The stream token (empty for `activate`). Tries until answered; raises Refused when told no."""
        backoff = NetworkBackoff(self._connectivity)
        refused_since_s: float | None = None
        turns = 0
        loop = asyncio.get_running_loop()
        while True:
            try:
                return await self._once(spec, phase)
            except Refused as error:
                if isinstance(error, TokenRefused):
                    # The other token, now; neither is given up for good, for a refusal may be a stray one.
                    self._clients.reverse()
                    turns += 1
                    if turns % len(self._clients):
                        continue
                refused_since_s = refused_since_s or loop.time()
                if error.code in FINAL_CODES or loop.time() - refused_since_s > SETUP_REFUSED_LIMIT_S:
                    raise
                await backoff.wait(error)
            except NetworkError as error:
                await backoff.wait(error)

    async def token(self, spec: StreamSpec) -> str:
        """A fresh token of an open stream: without a second announcement where the network allows it."""
        if spec.affinity == "dedicated":
            try:
                return await self.ask(spec, "token_request")
            except Refused as refused:
                if refused.code not in FINAL_CODES:
                    raise
        return await self.ask(spec, "embedded")

    async def _once(self, spec: StreamSpec, phase: str) -> str:
        start = self._start
        body = {
            "type": "stream_setup",
            "protocolVersion": PROTOCOL_VERSION,
            "taskId": start.task_id,
            "orgId": start.org,
            "agentName": self._agent_name,
            "streamId": spec.stream_id,
            "channel": stream_channel(self._agent_name, spec.stream_id),
            "direction": spec.direction,
            "taskKind": start.kind,
            "durationMinutes": start.duration_min or 60,
            "format": spec.format,
            "affinity": spec.affinity,
            "declaredStream": spec.name,
            "phase": phase,
        }
        answer = await self._clients[0].ask_function(setup_channel(start.org, start.task_id), body)
        reply = answer.get("message") if isinstance(answer, dict) else None
        reply = reply if isinstance(reply, dict) else answer
        if not isinstance(reply, dict) or "ok" not in reply:
            raise TokenRefused(f"stream {spec.name}: the task's token does not allow to open it", 403)
        if reply["ok"] is not True:
            code, message = error_of(reply)
            raise Refused(f"stream {spec.name}: {message or code or 'refused'}", 403, code)
        response = reply.get("streamSetupResponse")
        token = response.get("token", "") if isinstance(response, dict) else None
        if not isinstance(token, str) or (phase != "activate" and not token):
            raise ProtocolFault(f"stream {spec.name}: the setup answer has no token")
        return token


class OpenStream:
    """One open channel with its writer and reader."""

    def __init__(
        self,
        spec: StreamSpec,
        agent_name: str,
        client: PubSubClient,
        setup: StreamTokens,
        *,
        connectivity: Connectivity,
        clock: Clock,
        background: BackgroundTasks,
    ) -> None:
        self.spec = spec
        self.channel = stream_channel(agent_name, spec.stream_id)
        self._client = client
        self._setup = setup
        self._connectivity = connectivity
        self._clock = clock
        self._background = background
        self._tasks: list[asyncio.Task[Any]] = []
        self._writer: StreamWriter | None = None
        self._source: MessageSource | None = None
        self._queue: asyncio.Queue[Inbound | None] = asyncio.Queue(INBOUND_MAX)
        self._renewing = asyncio.Lock()
        self._position = FROM_CACHE
        self._grace_s = 0.0
        self.faults = 0

    def start(self, source: MessageSource | None, rate_hz: float, grace_s: float, *, resumed: bool) -> None:
        """Begin reading at once, writing after the caller had time to subscribe.

        What the network still holds of a stream that an earlier process has read comes again. Commands have
        an id, by which that is seen; bytes have none, and must not move a machine twice.
        """
        if resumed and self.spec.format == "bytes":
            self._position = FROM_NOW
        if self.spec.direction != "outbound":
            self._tasks.append(self._background.run_forever(f"reader {self.spec.name}", self._read))
        if source is not None and self.spec.direction != "inbound":
            self._source = source
            self._writer = StreamWriter(
                self.spec,
                self.channel,
                self._client,
                source,
                connectivity=self._connectivity,
                clock=self._clock,
                rate_hz=rate_hz,
                renew=self.renew,
            )
            self._grace_s = grace_s
            self._tasks.append(self._background.run_forever(f"writer {self.spec.name}", self._write))

    def hand_over(self, setup: StreamTokens) -> None:
        """Another task of a shared stream renews its token from now on."""
        self._setup = setup

    async def renew(self) -> None:
        """A new token. Raises Refused where no token of the task serves any more."""
        before = self._client.token
        async with self._renewing:
            if self._client.token == before:
                self._client.token = await self._setup.token(self.spec)

    async def _write(self) -> None:
        assert self._writer is not None
        grace_s, self._grace_s = self._grace_s, 0.0
        await asyncio.sleep(grace_s)
        await self._writer.run()

    # -- reading --------------------------------------------------------------------------------------------

    async def inbound(self) -> AsyncIterator[Inbound]:
        while (item := await self._queue.get()) is not None:
            yield item

    async def _read(self) -> None:
        reader = StreamReader(self.spec.stream_id, self.spec.format)
        backoff = NetworkBackoff(self._connectivity)
        expression = f"meta.sender != '{self._client.uuid}'" if self.spec.direction == "bidirectional" else ""
        region: str | None = None
        while True:
            limit_s = REORDER_WAIT_S if reader.waiting else POLL_LIMIT_S
            try:
                batch = await self._connectivity.unless_back(
                    self._client.subscribe(
                        self.channel, self._position, region, limit_s=limit_s, filter_expression=expression
                    )
                )
            except TokenRefused as refused:
                await self._renew_or_wait(refused, backoff)
                continue
            except NetworkError as error:
                await backoff.wait(error)
                continue
            backoff.reset()
            now_s = self._clock.monotonic_s()
            if batch is not None:
                self._position, region = batch.timetoken, batch.region
                for delivery in batch.deliveries:
                    sender = str(delivery.meta.get("sender") or delivery.publisher)
                    try:
                        items = reader.feed(delivery.payload, delivery.sent_ms, sender, now_s)
                    except ProtocolFault as fault:
                        self.faults += 1
                        log.warning("stream_message_ignored", stream=self.spec.name, error=str(fault))
                        continue
                    await self._pass_on(items)
            await self._pass_on(reader.timed_out(now_s))

    async def _renew_or_wait(self, refused: TokenRefused, backoff: NetworkBackoff) -> None:
        try:
            await self.renew()
        except NetworkError as error:
            log.warning("stream_token_not_renewed", stream=self.spec.name, error=str(error))
            await backoff.wait(refused)

    async def _pass_on(self, items: list[Inbound]) -> None:
        for item in items:
            await self._queue.put(item)

    # -- end ------------------------------------------------------------------------------------------------

    async def close(self, *, end: bool) -> None:
        """Stop reading and writing. With `end`, what waits is sent first, for a bounded time."""
        if (
            end
            and self._writer is not None
            and self._source is not None
            and self.spec.affinity == "dedicated"
        ):
            writer_task = self._tasks[-1]
            try:
                async with asyncio.timeout(END_LIMIT_S):
                    await asyncio.wait([writer_task])
                    await self._writer.end(self._source.next_number)
            except TimeoutError:
                log.info("stream_end_not_sent", stream=self.spec.name)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=END_LIMIT_S)
        while self._queue.full():
            self._queue.get_nowait()
        self._queue.put_nowait(None)


def writer_uuid(agent_name: str, instance_id: str, stream_id: str) -> str:
    """The sender of a channel: the same after a restart, another for every instance (W27)."""
    return f"{agent_name}-stream-{zlib.crc32(f'{instance_id}/{stream_id}'.encode()):08x}"
