"""The setup handshake of a stream: asks the network for the token of its channel (docs/protocol.md)."""

import asyncio
from dataclasses import dataclass

from device_agent.errors import NetworkError, ProtocolFault, Refused, TokenRefused
from device_agent.network import StartTask, StreamSpec
from device_agent.network.blocks.clients import TaskClients
from device_agent.network.blocks.http import error_of
from device_agent.network.blocks.pubsub import PubSubClient
from device_agent.network.blocks.wire import PROTOCOL_VERSION, setup_channel, stream_channel
from device_agent.network.connectivity import Connectivity, NetworkBackoff

# How long a setup that the network refuses is tried again before it fails.
SETUP_REFUSED_LIMIT_S = 60.0
FINAL_CODES = frozenset({"InvalidArgument"})


@dataclass(frozen=True, slots=True)
class StreamTokens:
    """Gets the stream tokens of one task, over the task's own token or the control token."""

    agent_name: str
    start: StartTask
    clients: TaskClients
    connectivity: Connectivity

    async def first(self, spec: StreamSpec, *, announced: bool) -> str:
        """The first token in this process; `announced`: the caller knows the stream from an earlier one."""
        return await (self.renew(spec) if announced else self.ask(spec, "embedded"))

    async def renew(self, spec: StreamSpec) -> str:
        """A new token of an open stream: without a second announcement where the network allows it."""
        if spec.affinity == "dedicated":
            try:
                return await self.ask(spec, "token_request")
            except Refused as refused:
                if refused.code not in FINAL_CODES:
                    raise
        return await self.ask(spec, "embedded")

    async def ask(self, spec: StreamSpec, phase: str) -> str:
        """The stream token (empty for `activate`). Tries until it is answered; raises Refused."""
        backoff = NetworkBackoff(self.connectivity)
        loop, switches = asyncio.get_running_loop(), 0
        refused_since_s: float | None = None
        while True:
            client = self.clients.current
            try:
                return await self._ask_once(client, spec, phase)
            except Refused as error:
                if isinstance(error, TokenRefused):
                    self.clients.refused(client)
                    switches += 1
                    if switches % 2:
                        continue  # with the other token, at once
                refused_since_s = refused_since_s or loop.time()
                if error.code in FINAL_CODES or loop.time() - refused_since_s > SETUP_REFUSED_LIMIT_S:
                    raise
                await backoff.wait(error)
            except NetworkError as error:
                await backoff.wait(error)

    async def _ask_once(self, client: PubSubClient, spec: StreamSpec, phase: str) -> str:
        start = self.start
        body = {
            "type": "stream_setup",
            "protocolVersion": PROTOCOL_VERSION,
            "taskId": start.task_id,
            "orgId": start.org,
            "agentName": self.agent_name,
            "streamId": spec.stream_id,
            "channel": stream_channel(self.agent_name, spec.stream_id),
            "direction": spec.direction,
            "taskKind": start.kind,
            "durationMinutes": start.duration_min or 60,
            "format": spec.format,
            "affinity": spec.affinity,
            "declaredStream": spec.name,
            "phase": phase,
        }
        answer = await client.ask_function(setup_channel(start.org, start.task_id), body)
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
