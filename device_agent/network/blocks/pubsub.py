"""Messaging: pubnub's endpoints, one at a time, over the daemon's own pool (protocol section 7).

The library does paths, tokens, encoding and signing; loops, limits and recovery are ours. Its `future()`
swallows cancellation and is never used; `result()` raises like other code.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import quote, urlencode

from device_agent import __version__
from device_agent.errors import ProtocolFault, Refused, TokenRefused, Unreachable
from device_agent.network.blocks.http import Http, quiet_pubnub

PUBLISH_LIMIT_S = 10.0
PRESENCE_TIMEOUT_S = 20
DEFAULT_ORIGIN = "ps.pndsn.com"


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
    """The answer of one long-poll: where to go on, and what came. `full` hints that some may be missing."""

    timetoken: str
    region: str | None
    deliveries: tuple[Delivery, ...]


class PubSubClient:
    """One identity with one token: cheap (no task, no thread, about 3 KiB)."""

    def __init__(self, http: Http, keys: KeySet, *, uuid: str, token: str, origin: str, tls: bool) -> None:
        library = _library()
        config = library["PNConfiguration"]()
        config.publish_key = keys.publish
        config.subscribe_key = keys.subscribe
        config.uuid = uuid
        config.ssl = tls
        config.enable_subscribe = False
        config.set_presence_timeout(PRESENCE_TIMEOUT_S)
        config.origin = origin or DEFAULT_ORIGIN
        self.uuid = uuid
        self._http = http
        self._library = library
        self._pn = _Host(config, http, library["handler"])
        self.token = token

    @property
    def token(self) -> str:
        return self._token

    @token.setter
    def token(self, token: str) -> None:
        self._token = self._pn.token = token

    async def publish(self, channel: str, body: bytes, *, store: bool, meta: Mapping[str, Any]) -> int:
        """Publish a JSON text as it is; returns its timetoken."""
        endpoint = self._library["RawPublish"](
            self._pn, channel=channel, message=body, should_store=store, use_post=True, meta=dict(meta)
        )
        sent_s = time.monotonic()
        result = await self._result(f"publish to {channel}", endpoint, PUBLISH_LIMIT_S)
        self._http.connectivity.time_sample(result.timetoken / 10_000, sent_s, time.monotonic())
        return int(result.timetoken)

    async def ask_function(self, channel: str, body: Mapping[str, Any]) -> Any:
        """Publish where a server function answers with HTTP 403; returns that body, parsed."""
        endpoint = self._library["RawPublish"](
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
        endpoint = self._library["Subscribe"](
            self._pn,
            channels=[channel],
            timetoken=timetoken,
            region=region,
            filter_expression=filter_expression,
        )
        sent_s = time.monotonic()
        try:
            answer = await self._result(f"subscribe to {channel}", endpoint, limit_s)
        except Unreachable:
            # The limit ran out with the request under way: that is how a quiet channel looks.
            if time.monotonic() - sent_s >= limit_s - 0.05:
                return None
            raise
        return _batch(channel, answer)

    async def heartbeat(self, channel: str, state: Mapping[str, Any], limit_s: float) -> None:
        await self._result(
            "heartbeat",
            self._library["Heartbeat"](self._pn).channels(channel).state({channel: dict(state)}),
            limit_s,
        )

    async def set_state(self, channel: str, state: Mapping[str, Any], limit_s: float) -> None:
        endpoint = self._library["SetState"](self._pn, channels=[channel], state=dict(state))
        await self._result("presence state", endpoint, limit_s)

    async def leave(self, channel: str, limit_s: float) -> None:
        await self._result("leave", self._library["Leave"](self._pn).channels(channel), limit_s)

    async def ping(self, limit_s: float) -> None:
        """The service's clock: needs no token, so it proves the way and nothing else."""
        sent_s = time.monotonic()
        answer = await self._result("time", self._library["Time"](self._pn), limit_s)
        self._http.connectivity.time_sample(int(answer.value_as_int) / 10_000, sent_s, time.monotonic())

    def file_url(self, channel: str, file_id: str, name: str) -> str:
        """Where a file of a channel is to be had, this client's token in it."""
        path = "/".join(quote(part, safe="") for part in (channel, "files", file_id, name))
        scheme = "https" if self._pn.config.ssl else "http"
        query = urlencode({"pnsdk": f"device-agent/{__version__}", "uuid": self.uuid, "auth": self._token})
        where = f"{self._pn.config.origin}/v1/files/{self._pn.config.subscribe_key}/channels"
        return f"{scheme}://{where}/{path}?{query}"

    def token_expires_ms(self, token: str) -> int | None:
        """When a token says it ends, epoch milliseconds of the network; None if it does not say."""
        try:
            parsed = self._library["TokenManager"].parse_token(token)
            return (int(parsed["timestamp"]) + int(parsed["ttl"]) * 60) * 1000
        except (KeyError, TypeError, ValueError, EOFError, self._library["PubNubException"]):
            return None  # used as it is and renewed on the first 403

    async def _result(self, what: str, endpoint: Any, limit_s: float) -> Any:
        try:
            async with self._http.exchange(what, limit_s):
                result = await endpoint.result()
        except self._library["PubNubException"] as error:
            self._http.connectivity.answered()
            raise _refusal(what, error) from None
        except (ValueError, KeyError, IndexError, TypeError) as error:
            self._http.connectivity.answered()
            raise Refused(f"{what}: the answer is not what the protocol says ({error})", 502) from None
        self._http.connectivity.answered()
        return result


class _Host:
    """What pubnub's endpoints ask of a client.

    The library's own brings 140 modules more: a second HTTP library, an event engine, every endpoint there
    is; 4 MB and a tenth of the start.
    """

    sdk_name = f"device-agent/{__version__}"

    def __init__(self, config: Any, http: Http, handler: Any) -> None:
        self.config = config
        self.uuid = config.uuid
        self.base_origin = config.origin
        self.headers = {"User-Agent": self.sdk_name}
        self.shared_http = http
        self.token = ""
        self._handler = handler(self)
        # Endpoints ask a subscription manager for parameters; ours are given to them by hand.
        self._subscription_manager = self

    def get_custom_params(self) -> dict[str, Any]:
        return {}

    def _get_token(self) -> str:
        return self.token

    async def request_result(self, options_func: Any, cancellation_event: Any) -> Any:
        return (await self._handler.async_request(options_func, cancellation_event)).result


def _refusal(what: str, error: Any) -> Refused:
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


def _batch(channel: str, answer: Any) -> Batch:
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


@lru_cache(maxsize=1)
def _library() -> dict[str, Any]:
    """The parts of pubnub that are used, imported when the network is first used."""
    from pubnub.endpoints.presence.heartbeat import Heartbeat
    from pubnub.endpoints.presence.leave import Leave
    from pubnub.endpoints.presence.set_state import SetState
    from pubnub.endpoints.pubsub.publish import Publish
    from pubnub.endpoints.pubsub.subscribe import Subscribe
    from pubnub.endpoints.time import Time
    from pubnub.exceptions import PubNubException
    from pubnub.managers import TokenManager
    from pubnub.pnconfiguration import PNConfiguration
    from pubnub.request_handlers.async_aiohttp import AsyncAiohttpRequestHandler

    quiet_pubnub()

    class SharedPoolHandler(AsyncAiohttpRequestHandler):  # type: ignore[misc]
        """Sends through the daemon's pool; opens and closes nothing of its own."""

        def __init__(self, pubnub: Any) -> None:
            self.pubnub = pubnub

        @property
        def _session(self) -> Any:
            return self.pubnub.shared_http.session()

        async def create_session(self) -> None: ...

        async def close_session(self) -> None: ...

    class RawPublish(Publish):  # type: ignore[misc]
        """Its message is JSON text already: nothing is encoded twice."""

        def build_data(self) -> bytes:
            return bytes(self._message)

    return {
        "Heartbeat": Heartbeat,
        "Leave": Leave,
        "PNConfiguration": PNConfiguration,
        "PubNubException": PubNubException,
        "RawPublish": RawPublish,
        "SetState": SetState,
        "Subscribe": Subscribe,
        "Time": Time,
        "TokenManager": TokenManager,
        "handler": SharedPoolHandler,
    }
