"""The channel of one open stream: publish, subscribe, and the token for both."""

import asyncio
import zlib

from device_agent.network import StreamSpec
from device_agent.network.blocks.messages import stream_meta
from device_agent.network.blocks.pubsub import Batch, PubSubClient
from device_agent.network.blocks.stream_tokens import StreamTokens
from device_agent.network.blocks.wire import stream_channel


class StreamChannel:
    """Used by the stream's reader and its writer. `tokens` renews the token of `client`."""

    def __init__(self, spec: StreamSpec, agent_name: str, client: PubSubClient, tokens: StreamTokens) -> None:
        self.spec = spec
        self.name = stream_channel(agent_name, spec.stream_id)
        self._client = client
        self._tokens = tokens
        self._renewing = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<StreamChannel {self.name}>"

    async def publish(self, text: bytes) -> int:
        """Publish one message; returns its timetoken. Raises NetworkError."""
        return await self._client.publish(self.name, text, store=False, meta=stream_meta(self._client.uuid))

    async def subscribe(self, timetoken: str, region: str | None, limit_s: float) -> Batch | None:
        """One long-poll without our own messages; None when it ended without news. Raises NetworkError."""
        both_ways = self.spec.direction == "bidirectional"
        return await self._client.subscribe(
            self.name,
            timetoken,
            region,
            limit_s=limit_s,
            filter_expression=f"meta.sender != '{self._client.uuid}'" if both_ways else "",
        )

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


def writer_uuid(agent_name: str, instance_id: str, stream_id: str) -> str:
    """The sender of a stream: the same after a restart, another for each instance (docs/protocol.md, W27)."""
    return f"{agent_name}-stream-{zlib.crc32(f'{instance_id}/{stream_id}'.encode()):08x}"
