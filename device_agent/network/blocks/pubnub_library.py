"""What is used of the `pubnub` package: its endpoints build paths, query strings and bodies of requests.

Sending, reading of answers, loops, limits and recovery are ours. Imported at the start: loading it is slow.
"""

from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import quote

from pubnub.endpoints.presence.get_state import GetState as GetState
from pubnub.endpoints.presence.heartbeat import Heartbeat as Heartbeat
from pubnub.endpoints.presence.leave import Leave as Leave
from pubnub.endpoints.presence.set_state import SetState as SetState
from pubnub.endpoints.pubsub.publish import Publish
from pubnub.endpoints.pubsub.subscribe import Subscribe as Subscribe
from pubnub.endpoints.time import Time as Time

from device_agent import __version__

_PLAIN = {"uuid", "auth"}


@dataclass(frozen=True, slots=True)
class Settings:
    """What the endpoints ask of a client's configuration.

    The library's own class brings encryption, which nobody here uses: 30 modules more.
    """

    publish_key: str
    subscribe_key: str
    presence_timeout: int
    # Whoever sends has a limit of its own around each request.
    connect_timeout: ClassVar[int] = 10
    non_subscribe_request_timeout: ClassVar[int] = 10
    subscribe_request_timeout: ClassVar[int] = 310
    should_compress: ClassVar[bool] = False
    heartbeat_default_values: ClassVar[bool] = False
    auth_key: ClassVar[None] = None
    secret_key: ClassVar[None] = None
    cipher_key: ClassVar[None] = None
    crypto_module: ClassVar[None] = None


class RawPublish(Publish):  # type: ignore[misc]
    """Its message is JSON text already and is not encoded again."""

    def build_data(self) -> bytes:
        return bytes(self._message)


class PubNubHost:
    """What the library's endpoints ask of a client.

    The library's own client imports 140 modules more (a second HTTP library, an event engine, all endpoints):
    4 MB and a tenth of the start.
    """

    sdk_name = f"device-agent/{__version__}"

    def __init__(self, config: Settings, uuid: str, token: str) -> None:
        self.config = config
        self.uuid = uuid
        self.token = token
        # The endpoints ask a subscription manager for parameters, and there are none.
        self._subscription_manager = self

    def get_custom_params(self) -> dict[str, Any]:
        return {}

    def _get_token(self) -> str:
        return self.token


def request_of(endpoint: Any) -> tuple[str, str, bytes | None, dict[str, str]]:
    """Method, path with query string, body and headers of a request."""
    endpoint.validate_params()
    options = endpoint.options()
    options.merge_params_in({})
    # Which the endpoints take to be encoded.
    options.params |= {name: quote(options.params[name], safe="~") for name in _PLAIN & options.params.keys()}
    where = f"{options.path}?{options.query_string}"
    return options.method_string, where, options.data or None, dict(options.request_headers)
