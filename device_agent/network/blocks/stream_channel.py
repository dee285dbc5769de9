"""The channel of one open stream: publish, subscribe, and the token for both."""

import asyncio
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from device_agent.errors import NetworkError, Unreachable
from device_agent.network import StreamSpec
from device_agent.network.blocks.long_poll import Batch
from device_agent.network.blocks.messages import stream_meta, without_items
from device_agent.network.blocks.pubsub import NOW, PUBLISH_LIMIT_S, PubSubClient
from device_agent.network.blocks.stream_tokens import StreamTokens
from device_agent.network.blocks.wire import stream_channel
from device_agent.network.connectivity import Connectivity, Way


class StreamChannel:
    """Used by the stream's reader and its writer. `tokens` renews the token of `client`."""

    def __init__(
        self,
        spec: StreamSpec,
        agent_name: str,
        client: PubSubClient,
        tokens: StreamTokens,
        connectivity: Connectivity,
    ) -> None:
        self.spec = spec
        self.name = stream_channel(agent_name, spec.stream_id)
        self._client = client
        self._tokens = tokens
        self._renewing = asyncio.Lock()
        self.inward = connectivity.way(f"reception on {self.name}")
        self.outward = connectivity.way(f"publishing on {self.name}")

    def __repr__(self) -> str:
        return f"<StreamChannel {self.name}>"

    async def publish(self, text: bytes, limit_s: float = PUBLISH_LIMIT_S) -> int:
        """Publish one message; returns its timetoken. Raises NetworkError."""
        with _shown(self.outward):
            meta = stream_meta(self._client.uuid)
            timetoken = await self._client.publish(self.name, text, store=False, meta=meta, limit_s=limit_s)
        self.outward.worked()
        return timetoken

    async def subscribe(self, timetoken: str, region: str | None, limit_s: float) -> Batch | None:
        """One long-poll without our own messages; None when it ended without news. Raises NetworkError."""
        both_ways = self.spec.direction == "bidirectional"
        with _shown(self.inward):
            batch = await self._client.listen(
                self.name,
                timetoken,
                region,
                limit_s=limit_s,
                filter_expression=f"meta.sender != '{self._client.uuid}'" if both_ways else "",
            )
        if batch is not None:
            self.inward.worked()
        return batch

    # -- proof ----------------------------------------

    def silent_s(self, within_s: float) -> float:
        """Seconds since it last worked, in the direction that has been silent longer."""
        ways = {"inbound": [self.inward], "outbound": [self.outward]}
        return max(
            way.silent_s(within_s) for way in ways.get(self.spec.direction, [self.inward, self.outward])
        )

    async def prove_inward(self) -> None:
        """Ask for the channel's current timetoken, which is answered at once. Raises NetworkError.

        A long-poll that brings nothing proves nothing; this goes the same way, with the same token.
        """
        with self.inward.proof() as limit_s:
            if await self._client.subscribe(self.name, NOW, None, limit_s=limit_s) is None:
                raise Unreachable(f"subscribe to {self.name}: not answered within {limit_s:g} s")

    async def prove_outward(self, now_ms: int) -> None:
        """Publish what every reader drops. Raises NetworkError."""
        with self.outward.proof() as limit_s:
            await self._client.publish(
                self.name,
                without_items(self.spec.stream_id, self.spec.format, now_ms),
                store=False,
                meta=stream_meta(self._client.uuid),
                limit_s=limit_s,
            )

    def close(self) -> None:
        """Nobody uses it any more."""
        self.inward.close()
        self.outward.close()

    # -- token ----------------------------------------

    async def ping(self, limit_s: float) -> None:
        """Ask for the network's clock. Raises NetworkError."""
        await self._client.ping(limit_s)

    async def renew_token(self) -> None:
        """Several callers at once get one new token. Raises Refused where no token of the task serves."""
        before = self._client.token
        async with self._renewing:
            if self._client.token == before:
                self._client.token = await self._tokens.renew(self.spec)

    def hand_over(self, tokens: StreamTokens) -> None:
        """Another task of a shared stream renews the token from now on."""
        self._tokens = tokens


@contextmanager
def _shown(way: Way) -> Iterator[None]:
    try:
        yield
    except NetworkError:
        way.failed()
        raise


def writer_uuid(agent_name: str, instance_id: str, stream_id: str) -> str:
    """The sender of a stream: the same after a restart, another for each instance (docs/protocol.md, W27)."""
    return f"{agent_name}-stream-{zlib.crc32(f'{instance_id}/{stream_id}'.encode()):08x}"
