"""A PubSub client in memory. It accepts everything unless a script says what to answer next."""

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any

from device_agent.errors import Refused, TokenRefused, Unreachable
from device_agent.network.blocks.long_poll import Batch, Delivery

TOKEN_REFUSED = TokenRefused("forbidden", 403)
REFUSED = Refused("overloaded", 503)
UNREACHABLE = Unreachable("no answer")
SILENCE = object()
"""No answer comes."""


def delivery(payload: Any, timetoken: int = 1, **meta: str) -> Delivery:
    return Delivery("channel", payload, timetoken, meta, "publisher")


def batch(timetoken: int, *deliveries: Delivery) -> Batch:
    return Batch(str(timetoken), "4", deliveries)


class FakePubSub:
    """Stands for `PubSubClient`.

    `answers` are used by requests other than long-polls, one each, an exception is raised; without one, the
    request is accepted. `batches` answer the long-polls, which wait for them; `TokenRefused` and the like are
    raised. `channel_ends` is what a subscription at timetoken 0 is answered with, at once, or `SILENCE`.
    """

    def __init__(self, name: str = "AG-x", token: str = "token") -> None:
        self.uuid = name
        self.token = token
        self.answers: deque[Any] = deque()
        self.batches: asyncio.Queue[Any] = asyncio.Queue()
        self.channel_ends: Any = batch(100)
        self.published: list[tuple[str, bytes]] = []
        self.tokens: list[str] = []
        self.limits_s: list[float] = []
        """What the tries to publish were given."""
        self.polls: list[tuple[str, str]] = []
        self.states: list[Mapping[str, Any]] = []
        self.heartbeats = 0
        self.state_now: Mapping[str, Any] | BaseException = {}
        """What the network says that our presence state is."""
        self.pings = 0

    async def _answer(self, otherwise: Any = None) -> Any:
        self.tokens.append(self.token)
        await asyncio.sleep(0)
        answer = self.answers.popleft() if self.answers else otherwise
        if isinstance(answer, BaseException):
            raise answer
        return answer

    async def publish(
        self, channel: str, body: bytes, *, store: bool, meta: Mapping[str, Any], limit_s: float = 10.0
    ) -> int:
        self.limits_s.append(limit_s)
        timetoken = await self._answer(1)
        self.published.append((channel, body))
        return int(timetoken)

    async def ask_function(self, channel: str, body: Mapping[str, Any]) -> Any:
        self.published.append((channel, str(body["phase"]).encode()))
        return await self._answer({"message": {"ok": True, "streamSetupResponse": {"token": "new"}}})

    async def subscribe(
        self, channel: str, timetoken: str, region: str | None, *, limit_s: float, filter_expression: str = ""
    ) -> Batch | None:
        self.polls.append((timetoken, filter_expression))
        answer = self.channel_ends if timetoken == "0" else await self.batches.get()
        if answer is SILENCE:
            await asyncio.Event().wait()
        if isinstance(answer, BaseException):
            raise answer
        return answer  # type: ignore[no-any-return]

    listen = subscribe

    async def heartbeat(self, channel: str, state: Mapping[str, Any], limit_s: float) -> None:
        self.heartbeats += 1
        await self._answer()

    async def set_state(self, channel: str, state: Mapping[str, Any], limit_s: float) -> None:
        self.states.append(state)
        await self._answer()

    async def state(self, channel: str, limit_s: float) -> Mapping[str, Any]:
        if isinstance(self.state_now, BaseException):
            raise self.state_now
        return dict(self.state_now)

    async def ping(self, limit_s: float) -> None:
        self.pings += 1
        await self._answer()

    async def until(self, condition: Any) -> None:
        """Wait until this is true."""
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 - nobody signals it
                await asyncio.sleep(0.001)
