"""Messaging over PubNub (docs/protocol.md): one request each, built by its library, sent by our HTTP pool."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from device_agent.errors import ProtocolFault, Refused, TokenRefused, Unreachable
from device_agent.network.blocks.http import DEFAULT_ORIGIN, Http, read_reply
from device_agent.network.blocks.long_poll import Batch, read_batch

T = TypeVar("T")

# Of a long-poll while others wait for their turn.
CROWDED_LIMIT_S = 2.0
PUBLISH_LIMIT_S = 10.0
PRESENCE_TIMEOUT_S = 20
# A subscribe from here is answered at once, with the timetoken to go on from.
NOW = "0"


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys of one environment, from the config document."""

    publish: str
    subscribe: str


class PubSubClient:
    """One sender with one token: no task, no thread, about 1 KiB. All requests raise NetworkError."""

    def __init__(self, http: Http, keys: KeySet, *, uuid: str, token: str, origin: str, tls: bool) -> None:
        from device_agent.network.blocks import pubnub_library

        self.uuid = uuid
        self._http = http
        self._keys = keys
        self._base = f"{'https' if tls else 'http'}://{origin or DEFAULT_ORIGIN}"
        self._library = pubnub_library
        settings = pubnub_library.Settings(keys.publish, keys.subscribe, PRESENCE_TIMEOUT_S)
        self._pn = pubnub_library.PubNubHost(settings, uuid, token)

    @property
    def token(self) -> str:
        return self._pn.token

    @token.setter
    def token(self, token: str) -> None:
        self._pn.token = token

    async def publish(
        self,
        channel: str,
        body: bytes,
        *,
        store: bool,
        meta: Mapping[str, Any],
        limit_s: float = PUBLISH_LIMIT_S,
    ) -> int:
        """Publish a JSON text as it is; returns its timetoken."""
        endpoint = self._library.RawPublish(
            self._pn, channel=channel, message=body, should_store=store, use_post=True, meta=dict(meta)
        )
        sent_s = time.monotonic()
        answer = await self._result(f"publish to {channel}", endpoint, limit_s)
        timetoken = read(f"publish to {channel}", lambda: int(answer[2]))
        self._http.connectivity.time_sample(timetoken / 10_000, sent_s, time.monotonic())
        return timetoken

    async def ask_function(self, channel: str, body: Mapping[str, Any]) -> Any:
        """Publish where a server function answers with HTTP 403; returns that body, parsed."""
        endpoint = self._library.RawPublish(
            self._pn, channel=channel, message=json.dumps(body).encode(), should_store=False, use_post=True
        )
        try:
            await self._result(f"setup on {channel}", endpoint, PUBLISH_LIMIT_S)
        except TokenRefused as refused:
            return refused.body
        raise ProtocolFault(f"setup on {channel}: the network delivered the question instead of answering it")

    async def subscribe(
        self, channel: str, timetoken: str, region: str | None, *, limit_s: float, filter_expression: str = ""
    ) -> Batch | None:
        """One long-poll of at most `limit_s`; None when it ended without news (which proves nothing)."""
        endpoint = self._library.Subscribe(
            self._pn,
            channels=[channel],
            timetoken=timetoken,
            region=region,
            filter_expression=filter_expression,
        )
        sent_s = time.monotonic()
        try:
            held = timetoken != NOW
            answer = await self._answer(f"subscribe to {channel}", endpoint, limit_s, held=held)
        except Unreachable:
            # The limit ran out with the request under way: that is how a quiet channel looks.
            if time.monotonic() - sent_s >= limit_s - 0.05:
                return None
            raise
        return await read_batch(channel, answer.decode(errors="replace"))

    async def listen(
        self, channel: str, timetoken: str, region: str | None, *, limit_s: float, filter_expression: str = ""
    ) -> Batch | None:
        """As `subscribe`, for one of many streams: where there are too many, each has its turn."""
        listening = self._http.listening
        async with listening:
            limit_s = CROWDED_LIMIT_S if listening.locked() else limit_s
            return await self.subscribe(
                channel, timetoken, region, limit_s=limit_s, filter_expression=filter_expression
            )

    async def heartbeat(self, channel: str, state: Mapping[str, Any], limit_s: float) -> None:
        endpoint = self._library.Heartbeat(self._pn).channels(channel).state({channel: dict(state)})
        await self._result("heartbeat", endpoint, limit_s)

    async def set_state(self, channel: str, state: Mapping[str, Any], limit_s: float) -> None:
        endpoint = self._library.SetState(self._pn, channels=[channel], state=dict(state))
        await self._result("presence state", endpoint, limit_s)

    async def state(self, channel: str, limit_s: float) -> Mapping[str, Any]:
        """The presence state of our user, as whoever set it last has set it."""
        endpoint = self._library.GetState(self._pn, channels=[channel], uuid=self.uuid)
        answer = await self._result("presence state", endpoint, limit_s)
        state = read("presence state", lambda: answer["payload"])
        return state if isinstance(state, Mapping) else {}

    async def leave(self, channel: str, limit_s: float) -> None:
        await self._result("leave", self._library.Leave(self._pn).channels(channel), limit_s)

    async def ping(self, limit_s: float) -> None:
        """Ask for the network's clock. It needs no token, so it proves the link and nothing else."""
        sent_s = time.monotonic()
        answer = await self._result("time", self._library.Time(self._pn), limit_s)
        at_ms = read("time", lambda: int(answer[0]) / 10_000)
        self._http.connectivity.time_sample(at_ms, sent_s, time.monotonic())

    def file_url(self, channel: str, file_id: str, name: str) -> str:
        """The address of a file of a channel, with this client's token in it."""
        path = "/".join(quote(part, safe="") for part in (channel, "files", file_id, name))
        query = urlencode({"pnsdk": self._pn.sdk_name, "uuid": self.uuid, "auth": self.token})
        return f"{self._base}/v1/files/{self._keys.subscribe}/channels/{path}?{query}"

    async def _result(self, what: str, endpoint: Any, limit_s: float) -> Any:
        """The answer as JSON; None where it is none."""
        return parsed(await self._answer(what, endpoint, limit_s))

    async def _answer(self, what: str, endpoint: Any, limit_s: float, *, held: bool = False) -> bytes:
        """The answer's text."""
        from yarl import URL  # comes with aiohttp

        method, where, body, headers = self._library.request_of(endpoint)
        address = URL(f"{self._base}{where}", encoded=True)
        async with (
            self._http.exchange(what, limit_s, held=held),
            # A token goes nowhere else.
            self._http.session().request(
                method, address, data=body, headers=headers, allow_redirects=False
            ) as response,
        ):
            status, text = response.status, await read_reply(response, what)
        if status not in (200, 204):
            raise refusal(what, status, parsed(text))
        self._http.connectivity.answered()
        return text


def parsed(answer: bytes) -> Any:
    """None where it is no JSON."""
    try:
        return json.loads(answer.decode(errors="replace"))
    except (ValueError, RecursionError):
        return None


def read(what: str, take: Callable[[], T]) -> T:
    """What is taken of an answer. Raises Refused where it has another form."""
    try:
        return take()
    except (ValueError, KeyError, IndexError, TypeError, OverflowError) as error:
        raise Refused(f"{what}: the answer is not what the protocol says ({error})", 502) from None


def refusal(what: str, status: int, answer: Any) -> Refused:
    """The error that stands for this status: TokenRefused for HTTP 403, with the parsed answer."""
    text = answer.get("message") if isinstance(answer, dict) else answer
    sentence = f"{what}: HTTP {status} {text if isinstance(text, str) else ''}".rstrip()
    if status == 403:
        refused = TokenRefused(sentence, 403, "forbidden")
        refused.body = answer
        return refused
    return Refused(sentence, status)
