"""PubSub clients: the agent's own, with the control token, and one for each task and stream."""

import structlog

from device_agent.clock import Clock
from device_agent.errors import ProtocolFault
from device_agent.network.blocks.http import Http
from device_agent.network.blocks.identity import IdentityFile
from device_agent.network.blocks.joiner import JoinSettings
from device_agent.network.blocks.pubsub import KeySet, PubSubClient
from device_agent.network.blocks.token_expiry import expires_ms

log = structlog.get_logger("network")


class Clients:
    """Makes clients with the keys of the current environment, and holds the control client."""

    def __init__(self, settings: JoinSettings, http: Http, file: IdentityFile, clock: Clock) -> None:
        self._settings = settings
        self._http = http
        self._file = file
        self._clock = clock
        self._control: PubSubClient | None = None

    def make(self, uuid: str, token: str) -> PubSubClient:
        identity, settings = self._file.identity, self._settings
        return PubSubClient(
            self._http,
            KeySet(identity.publish_key, identity.subscribe_key),
            uuid=uuid,
            token=token,
            origin=settings.pubnub_origin,
            tls=settings.pubnub_tls,
        )

    @property
    def ready(self) -> bool:
        """Whether there has been a control token."""
        return self._control is not None

    @property
    def control(self) -> PubSubClient:
        """The control client; only once `ready`."""
        assert self._control is not None
        return self._control

    def use_control_token(self, token: str) -> None:
        self._file.identity.control_token = token
        if self._control is None:
            self._control = self.make(self._file.identity.instance_id, token)
        else:
            self._control.token = token

    def switch(self, environment: str, token: str) -> None:
        """Change to the other environment's keys: `playground` or `network`. Raises ProtocolFault."""
        identity = self._file.identity
        keys = identity.network_keys if environment == "network" else identity.playground_keys
        if not keys:
            raise ProtocolFault("SwitchEnvironment before the first join")
        identity.environment = environment
        identity.publish_key, identity.subscribe_key = keys
        identity.control_token = token
        self._control = self.make(identity.instance_id, token)
        self._file.save()
        log.info("environment_switched", environment=environment)

    def outlives_control_token(self, token: str) -> bool:
        """Whether this token ends later than the control token in use; true where one does not say."""
        theirs, ours = expires_ms(token), expires_ms(self._file.identity.control_token)
        return theirs is None or ours is None or theirs > ours

    def control_token_life_s(self) -> float | None:
        """Seconds until the control token ends; None if it does not say, or the time is not known."""
        ends_ms = expires_ms(self._file.identity.control_token)
        server_ms = self._http.connectivity.server_ms()
        if server_ms is None and self._clock.is_set():
            server_ms = self._clock.now_ms()
        if ends_ms is None or server_ms is None:
            return None
        return (ends_ms - server_ms) / 1000


class TaskClients:
    """The clients whose token may serve a task: its own, with the write token, and the control client.

    A write token cannot be renewed; the control token serves in its place. No token is given up, because a
    refusal may be a passing mistake.
    """

    def __init__(self, own: PubSubClient, control: PubSubClient) -> None:
        self.current = own
        self._other = control

    def refused(self, client: PubSubClient) -> None:
        """The token of this client was refused: the other one is current, if it is not already."""
        if client is self.current:
            self.current, self._other = self._other, client
