"""Messaging over PubNub (docs/protocol.md): one request each, over the daemon's own HTTP pool.

Of the library's endpoints only `result()` is used; their `future()` swallows cancellation.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from device_agent import __version__
from device_agent.errors import ProtocolFault, Refused, TokenRefused, Unreachable
from device_agent.network.blocks.http import DEFAULT_ORIGIN, Http

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


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message as a subscriber got it. `timetoken` is the publish time in units of 100 ns."""

    channel: str
    payload: Any
    timetoken: int
    meta: Mapping[str, Any]
    publisher: str

    @property
    def sent_ms(self) -> float:
        return self.timetoken / 10_000


@dataclass(frozen=True, slots=True)
class Batch:
    """The answer of one long-poll: where the next one goes on, and what came."""

    timetoken: str
    region: str | None
    deliveries: tuple[Delivery, ...]


class PubSubClient:
    """One sender with one token: no task, no thread, about 3 KiB. All requests raise NetworkError."""

    def __init__(self, http: Http, keys: KeySet, *, uuid: str, token: str, origin: str, tls: bool) -> None:
        from device_agent.network.blocks import pubnub_library

        config = pubnub_library.ClientSettings(
            publish_key=keys.publish,
            subscribe_key=keys.subscribe,
            uuid=uuid,
            origin=origin or DEFAULT_ORIGIN,
            ssl=tls,
            presence_timeout=PRESENCE_TIMEOUT_S,
        )
        self.uuid = uuid
        self._http = http
        self._library = pubnub_library
        self._pn = pubnub_library.PubNubHost(config, http)
        self.token = token

    @property
    def token(self) -> str:
        return self._token

    @token.setter
    def token(self, token: str) -> None:
        self._token = self._pn.token = token

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
        result = await self._result(f"publish to {channel}", endpoint, limit_s)
        self._http.connectivity.time_sample(result.timetoken / 10_000, sent_s, time.monotonic())
        return int(result.timetoken)

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
            answer = await self._result(f"subscribe to {channel}", endpoint, limit_s, held=held)
        except Unreachable:
            # The limit ran out with the request under way: that is how a quiet channel looks.
            if time.monotonic() - sent_s >= limit_s - 0.05:
                return None
            raise
        return parse_batch(channel, answer)

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
        await self._result(
            "heartbeat",
            self._library.Heartbeat(self._pn).channels(channel).state({channel: dict(state)}),
            limit_s,
        )

    async def set_state(self, channel: str, state: Mapping[str, Any], limit_s: float) -> None:
        endpoint = self._library.SetState(self._pn, channels=[channel], state=dict(state))
        await self._result("presence state", endpoint, limit_s)

    async def state(self, channel: str, limit_s: float) -> Mapping[str, Any]:
        """The presence state of our user, as whoever set it last has set it."""
        endpoint = self._library.GetState(self._pn, channels=[channel], uuid=self.uuid)
        result = await self._result("presence state", endpoint, limit_s)
        state = result.channels.get(channel)
        return state if isinstance(state, Mapping) else {}

    async def leave(self, channel: str, limit_s: float) -> None:
        await self._result("leave", self._library.Leave(self._pn).channels(channel), limit_s)

    async def ping(self, limit_s: float) -> None:
        """Ask for the network's clock. It needs no token, so it proves the link and nothing else."""
        sent_s = time.monotonic()
        answer = await self._result("time", self._library.Time(self._pn), limit_s)
        self._http.connectivity.time_sample(int(answer.value_as_int) / 10_000, sent_s, time.monotonic())

    def file_url(self, channel: str, file_id: str, name: str) -> str:
        """The address of a file of a channel, with this client's token in it."""
        path = "/".join(quote(part, safe="") for part in (channel, "files", file_id, name))
        query = urlencode({"pnsdk": f"device-agent/{__version__}", "uuid": self.uuid, "auth": self._token})
        where = f"{self._pn.config.origin}/v1/files/{self._pn.config.subscribe_key}/channels"
        return f"{self._pn.config.scheme()}://{where}/{path}?{query}"

    def token_expires_ms(self, token: str) -> int | None:
        """When a token ends, epoch milliseconds of the network's clock; None if it does not say."""
        try:
            said = self._library.token_fields(token)
            return (int(said["t"]) + int(said["ttl"]) * 60) * 1000
        except (KeyError, TypeError, ValueError, EOFError, OverflowError, RecursionError):
            return None  # used as it is and renewed on the first 403

    async def _result(self, what: str, endpoint: Any, limit_s: float, *, held: bool = False) -> Any:
        try:
            async with self._http.exchange(what, limit_s, held=held):
                result = await endpoint.result()
        except self._library.PubNubException as error:
            raise refusal_of(what, error) from None
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise Refused(f"{what}: the answer is not what the protocol says ({error})", 502) from None
        self._http.connectivity.answered()
        return result


def refusal_of(what: str, error: Any) -> Refused:
    """The error that stands for a PubNubException: TokenRefused for HTTP 403, with the parsed answer."""
    status = (
        getattr(getattr(error, "status", None), "status_code", None) or getattr(error, "_status_code", 0) or 0
    )
    body = getattr(getattr(error, "status", None), "original_response", None)
    text = body.get("message") if isinstance(body, dict) else body
    sentence = f"{what}: HTTP {status} {text if isinstance(text, str) else ''}".rstrip()
    if int(status) == 403:
        refused = TokenRefused(sentence, 403, "forbidden")
        refused.body = body
        return refused
    return Refused(sentence, int(status))


def parse_batch(channel: str, answer: Any) -> Batch:
    """The parsed answer of a long-poll. Raises ProtocolFault; single malformed messages are left out."""
    if not isinstance(answer, dict) or not isinstance(answer.get("t"), dict):
        raise ProtocolFault(f"subscribe to {channel}: the answer has no timetoken")
    position = answer["t"]
    deliveries = []
    for message in answer.get("m") or ():
        if not isinstance(message, dict) or message.get("e") not in (None, 0):
            continue  # signals and files are not ours
        try:
            meta = message.get("u")
            deliveries.append(
                Delivery(
                    channel=str(message["c"]),
                    payload=message.get("d"),
                    timetoken=int(message["p"]["t"]),
                    meta=meta if isinstance(meta, Mapping) else {},
                    publisher=str(message.get("i", "")),
                )
            )
        except (KeyError, TypeError, ValueError):
            continue  # one message of a bad form does not cost the others
    region = position.get("r")
    return Batch(str(position.get("t", "0")), None if region is None else str(region), tuple(deliveries))
