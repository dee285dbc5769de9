"""What is used of the `pubnub` package. Imported when the network is first used: loading it is slow.

The library builds paths and query strings, encodes and signs; loops, limits and recovery are ours.
"""

import base64
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import cbor2
from pubnub.endpoints.presence.get_state import GetState as GetState
from pubnub.endpoints.presence.heartbeat import Heartbeat as Heartbeat
from pubnub.endpoints.presence.leave import Leave as Leave
from pubnub.endpoints.presence.set_state import SetState as SetState
from pubnub.endpoints.pubsub.publish import Publish
from pubnub.endpoints.pubsub.subscribe import Subscribe as Subscribe
from pubnub.endpoints.time import Time as Time
from pubnub.exceptions import PubNubException as PubNubException
from pubnub.request_handlers.async_aiohttp import AsyncAiohttpRequestHandler

from device_agent import __version__
from device_agent.network.blocks.http import Http

# It logs every failed request as an error; whoever sent the request logs the loss, once.
logging.getLogger("pubnub").setLevel(logging.CRITICAL + 1)


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """What the endpoints ask of a client's configuration.

    The library's own class brings encryption, which nobody here uses: 30 modules more.
    """

    publish_key: str
    subscribe_key: str
    uuid: str
    origin: str
    ssl: bool
    presence_timeout: int
    # Whoever sends has a limit of its own around each request.
    connect_timeout: int = 10
    non_subscribe_request_timeout: int = 10
    subscribe_request_timeout: int = 310
    should_compress: bool = False
    heartbeat_default_values: bool = False
    auth_key: ClassVar[None] = None
    secret_key: ClassVar[None] = None
    cipher_key: ClassVar[None] = None
    crypto_module: ClassVar[None] = None

    def scheme(self) -> str:
        return "https" if self.ssl else "http"


def token_fields(token: str) -> Mapping[str, Any]:
    """What a token says: `t` and `ttl` among other things. Raises ValueError, TypeError."""
    try:
        content = cbor2.loads(base64.b64decode(token, altchars=b"-_"))
    except cbor2.CBORDecodeError as error:
        raise ValueError(str(error)) from None
    return {
        name.decode(errors="replace") if isinstance(name, bytes) else str(name): value
        for name, value in dict(content).items()
    }


class RawPublish(Publish):  # type: ignore[misc]
    """Its message is JSON text already and is not encoded again."""

    def build_data(self) -> bytes:
        return bytes(self._message)


class _SharedPoolHandler(AsyncAiohttpRequestHandler):  # type: ignore[misc]
    """Sends through the daemon's pool; opens and closes nothing of its own."""

    def __init__(self, pubnub: "PubNubHost") -> None:
        self.pubnub = pubnub

    @property
    def _session(self) -> Any:
        return self.pubnub.http.session()

    async def create_session(self) -> None: ...

    async def close_session(self) -> None: ...


class PubNubHost:
    """What the library's endpoints ask of a client.

    The library's own client imports 140 modules more (a second HTTP library, an event engine, all endpoints):
    4 MB and a tenth of the start.
    """

    sdk_name = f"device-agent/{__version__}"

    def __init__(self, config: ClientSettings, http: Http) -> None:
        self.config = config
        self.uuid = config.uuid
        self.base_origin = config.origin
        self.headers = {"User-Agent": self.sdk_name}
        self.http = http
        self.token = ""
        self._handler = _SharedPoolHandler(self)
        # The endpoints ask a subscription manager for parameters, and there are none.
        self._subscription_manager = self

    def get_custom_params(self) -> dict[str, Any]:
        return {}

    def _get_token(self) -> str:
        return self.token

    async def request_result(self, options_func: Any, cancellation_event: Any) -> Any:
        def here() -> Any:
            options = options_func()
            options.allow_redirects = False  # a token goes nowhere else
            return options

        return (await self._handler.async_request(here, cancellation_event)).result
