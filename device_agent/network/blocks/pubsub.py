"""Messaging over PubNub's REST interface (docs/protocol.md): one request each, over the daemon's HTTP pool.

Its library would bring 30 modules, parse each address again and make a task for each request.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from device_agent import __version__
from device_agent.errors import ProtocolFault, Refused, TokenRefused, Unreachable
from device_agent.network.blocks.http import DEFAULT_ORIGIN, Http, read_reply
from device_agent.network.blocks.long_poll import Batch, read_batch

T = TypeVar("T")

SDK_NAME = f"device-agent/{__version__}"
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
        self.uuid = uuid
        self.token = token
        self._http = http
        self._keys = keys
        self._base = f"{'https' if tls else 'http'}://{origin or DEFAULT_ORIGIN}"

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
        where = self._publishing(channel)
        query = {"store": int(store), "meta": json.dumps(meta)}
        sent_s = time.monotonic()
        answer = await self._result(f"publish to {channel}", where, query, limit_s, body=body)
        timetoken = read(f"publish to {channel}", lambda: int(answer[2]))
        self._http.connectivity.time_sample(timetoken / 10_000, sent_s, time.monotonic())
        return timetoken

    def _publishing(self, channel: str) -> tuple[str, ...]:
        return "publish", self._keys.publish, self._keys.subscribe, "0", channel, "0"

    async def ask_function(self, channel: str, body: Mapping[str, Any]) -> Any:
        """Publish where a server function answers with HTTP 403; returns that body, parsed."""
        where, data = self._publishing(channel), json.dumps(body).encode()
        try:
            await self._result(f"setup on {channel}", where, {"store": 0}, PUBLISH_LIMIT_S, body=data)
        except TokenRefused as refused:
            return refused.body
        raise ProtocolFault(f"setup on {channel}: the network delivered the question instead of answering it")

    async def subscribe(
        self, channel: str, timetoken: str, region: str | None, *, limit_s: float, filter_expression: str = ""
    ) -> Batch | None:
        """One long-poll of at most `limit_s`; None when it ended without news (which proves nothing)."""
        query: dict[str, Any] = {"tt": timetoken, "heartbeat": PRESENCE_TIMEOUT_S}
        if region is not None:
            query["tr"] = region
        if filter_expression:
            query["filter-expr"] = filter_expression
        where = "v2", "subscribe", self._keys.subscribe, channel, "0"
        sent_s = time.monotonic()
        try:
            held = timetoken != NOW
            answer = await self._answer(f"subscribe to {channel}", where, query, limit_s, held=held)
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

    def _presence(self, channel: str, *rest: str) -> tuple[str, ...]:
        return "v2", "presence", "sub-key", self._keys.subscribe, "channel", channel, *rest

    async def heartbeat(self, channel: str, state: Mapping[str, Any], limit_s: float) -> None:
        query = {"heartbeat": PRESENCE_TIMEOUT_S, "state": json.dumps({channel: dict(state)})}
        await self._result("heartbeat", self._presence(channel, "heartbeat"), query, limit_s)

    async def set_state(self, channel: str, state: Mapping[str, Any], limit_s: float) -> None:
        where, query = self._presence(channel, "uuid", self.uuid, "data"), {"state": json.dumps(dict(state))}
        await self._result("presence state", where, query, limit_s)

    async def state(self, channel: str, limit_s: float) -> Mapping[str, Any]:
        """The presence state of our user, as whoever set it last has set it."""
        where = self._presence(channel, "uuid", self.uuid)
        answer = await self._result("presence state", where, {}, limit_s)
        state = read("presence state", lambda: answer["payload"])
        return state if isinstance(state, Mapping) else {}

    async def leave(self, channel: str, limit_s: float) -> None:
        await self._result("leave", self._presence(channel, "leave"), {}, limit_s)

    async def ping(self, limit_s: float) -> None:
        """Ask for the network's clock. It needs no token, so it proves the link and nothing else."""
        sent_s = time.monotonic()
        answer = await self._result("time", ("time", "0"), {}, limit_s, token=False)
        at_ms = read("time", lambda: int(answer[0]) / 10_000)
        self._http.connectivity.time_sample(at_ms, sent_s, time.monotonic())

    def file_url(self, channel: str, file_id: str, name: str) -> str:
        """The address of a file of a channel, with this client's token in it."""
        where = "v1", "files", self._keys.subscribe, "channels", channel, "files", file_id, name
        return self._address(where, {})

    def _address(self, where: Iterable[str], query: Mapping[str, Any], *, token: bool = True) -> str:
        members = {**query, "pnsdk": SDK_NAME, "uuid": self.uuid} | ({"auth": self.token} if token else {})
        return f"{self._base}/{'/'.join(map(_quoted, where))}?{urlencode(members, quote_via=quote, safe='~')}"

    async def _result(
        self, what: str, where: Iterable[str], query: Mapping[str, Any], limit_s: float, **options: Any
    ) -> Any:
        """As `_answer`, as JSON; None where it is none."""
        return parsed(await self._answer(what, where, query, limit_s, **options))

    async def _answer(
        self,
        what: str,
        where: Iterable[str],
        query: Mapping[str, Any],
        limit_s: float,
        *,
        body: bytes | None = None,
        held: bool = False,
        token: bool = True,
    ) -> bytes:
        """The answer's text. `where`: the path's parts. With a body it is POST."""
        from yarl import URL  # comes with aiohttp

        address = URL(self._address(where, query, token=token), encoded=True)
        method, headers = ("GET", {}) if body is None else ("POST", {"Content-Type": "application/json"})
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


def _quoted(part: str) -> str:
    return quote(part, safe="~")


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
