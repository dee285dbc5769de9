"""Joining: config document, registry, connect (docs/protocol.md). Each is tried once; the caller repeats."""

import asyncio
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import structlog

from device_agent import __version__
from device_agent.errors import ConfigError, NetworkError, NoKey, ProtocolFault, Refused, TokenRefused
from device_agent.network.blocks.http import Api, Http
from device_agent.network.blocks.identity import IdentityFile
from device_agent.network.blocks.wire import PROTOCOL_VERSION

log = structlog.get_logger("join")

DEFAULT_CDM_URL = "https://config.blocks.ai/config.json"
CDM_LIMIT_S = 10.0
# How often it is looked for another API key, where the present one does not serve.
KEY_LOOK_S = 2.0


@dataclass(frozen=True, slots=True)
class JoinSettings:
    """The configuration of the network's side."""

    agent_name: str
    api_key: Callable[[], str] = field(repr=False)
    """Looks it up; raises ConfigError where there is none."""
    concurrency: Callable[[], int] = lambda: 1
    """Tasks at once, as the network is told; 0 for no limit."""
    expected_instances: int = 1
    max_pending_backlog: int | None = None
    max_running_s: int | None = None
    cdm_url: str = ""
    api_base_url: str = ""
    pubnub_origin: str = ""
    pubnub_tls: bool = True
    publish_rate_hz: float = 12.0
    proxy: str | None = None


class Joiner:
    """Performs one whole join and leaves its results in the identity file.

    `on_card` is called with the published card at each join.
    """

    def __init__(
        self,
        settings: JoinSettings,
        http: Http,
        file: IdentityFile,
        on_card: Callable[[dict[str, Any]], None],
    ) -> None:
        self._settings = settings
        self._http = http
        self.file = file
        self.api = Api(http, settings.api_base_url or file.identity.api_base_url)
        self._on_card = on_card

    @property
    def instance_id(self) -> str:
        return self.file.identity.instance_id

    async def join(self) -> None:
        """Raises NetworkError; Revoked and NoKey if only a person can help."""
        self._key()
        await self._read_config_document()
        try:
            await self._read_registry()
        except Refused as refused:
            # With a key that is not valid, a private agent is "not found": connect says which it is.
            if refused.status != 404:
                raise
            if not self.file.identity.billing_mode:
                first = f"publish {self._settings.agent_name} first (`device-agent publish`)"
                why = f"{refused}: {first}, or give a key of its organisation if it is private"
                raise Refused(why, 404, refused.code) from refused
        await self._connect()
        self.file.save()

    def _key(self) -> str:
        try:
            return self._settings.api_key()
        except ConfigError as error:
            raise NoKey(str(error)) from error

    async def until_key_changes(self) -> None:
        """Until there is another API key, or another reason why there is none."""

        def found() -> str:
            try:
                return self._key()
            except NoKey as error:
                return str(error)

        before = found()
        while found() == before:  # noqa: ASYNC110 - nobody signals a file
            await asyncio.sleep(KEY_LOOK_S)

    async def _read_config_document(self) -> None:
        url = self._settings.cdm_url or DEFAULT_CDM_URL
        identity = self.file.identity
        try:
            document = await Api(self._http, url).request("GET", "", limit_s=CDM_LIMIT_S)
            self._take_config(url, document)
        except NetworkError as error:
            # The document seldom changes, and its content is kept in the identity file.
            if not identity.playground_keys or not self.api.base_url:
                raise
            log.info("config_document_cached", url=url, error=str(error))

    def _take_config(self, url: str, document: dict[str, Any]) -> None:
        identity = self.file.identity
        for name in ("playground", "network"):
            keys = document.get(name)
            pair = [keys.get("publishKey"), keys.get("subscribeKey")] if isinstance(keys, dict) else []
            if len(pair) != 2 or not all(isinstance(key, str) and key for key in pair):
                raise ProtocolFault(f"config document {url}: {name} lacks publishKey or subscribeKey")
            setattr(identity, f"{name}_keys", pair)
        api = document.get("api")
        base_url = self._settings.api_base_url or (api.get("baseUrl") if isinstance(api, dict) else "")
        if not isinstance(base_url, str) or not base_url.startswith(("http://", "https://")):
            raise ProtocolFault(f"config document {url}: api.baseUrl is not an http or https address")
        identity.api_base_url = base_url
        self.api.base_url = base_url.rstrip("/")

    async def _read_registry(self) -> None:
        name = self._settings.agent_name
        reply = await self.api.request(
            "GET", f"/api/v1/registry/agents?agentName={quote(name)}", bearer=self._key()
        )
        agent = reply.get("agent")
        mode = agent.get("billingMode") if isinstance(agent, dict) else None
        if mode not in ("free", "paid"):
            raise ProtocolFault(f"registry entry of {name}: billingMode is {mode!r}, not free or paid")
        self.file.identity.billing_mode = mode
        listing = agent.get("listing") if isinstance(agent, dict) else ""
        self.file.identity.listing = listing if listing in ("public", "private") else ""
        published = agent.get("card") if isinstance(agent, dict) else None
        if isinstance(published, dict):
            self._on_card(published)

    async def _connect(self) -> None:
        identity, settings = self.file.identity, self._settings
        body: dict[str, Any] = {
            "agentName": settings.agent_name,
            "instanceId": identity.instance_id,
            "billingMode": identity.billing_mode,
            "listing": identity.listing or None,
            "expectedInstances": settings.expected_instances,
            "concurrency": settings.concurrency(),
            "maxPendingBacklog": settings.max_pending_backlog,
            "maxRunningTimeSec": settings.max_running_s,
            "deviceOs": platform.system().lower(),
            "sdkLanguage": "Python",
            "sdkVersion": f"device-agent/{__version__}",
            "protocolVersions": [PROTOCOL_VERSION],
            "preferredProtocolVersion": PROTOCOL_VERSION,
        }
        reply = await self.api.request(
            "POST",
            "/api/v1/auth/agent/connect",
            bearer=self._key(),
            body={name: value for name, value in body.items() if value is not None},
        )
        for member in ("accessToken", "refreshToken", "controlChannel", "pamToken"):
            if not isinstance(reply.get(member), str) or not reply[member]:
                raise ProtocolFault(f"connect: the answer has no {member}")
        identity.access_token = reply["accessToken"]
        identity.refresh_token = reply["refreshToken"]
        identity.agent_id = str(reply.get("agentId", ""))
        if identity.control_channel != reply["controlChannel"]:
            identity.control_timetoken = "0"
        identity.control_channel = reply["controlChannel"]
        identity.control_token = reply["pamToken"]
        identity.environment = "playground" if identity.billing_mode == "free" else "network"
        keys = identity.playground_keys if identity.environment == "playground" else identity.network_keys
        identity.publish_key, identity.subscribe_key = keys

    async def call(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """A request with the access token, which is refreshed once if it has expired. Raises NetworkError."""
        bearer = self.file.identity.access_token
        try:
            return await self.api.request("POST", path, bearer=bearer, body=body)
        except TokenRefused as refused:
            if refused.status != 401:
                raise
            return await self.api.request("POST", path, bearer=await self.refresh_access(), body=body)

    async def has_ended(self, task_id: str) -> str:
        """The terminal state of a task; empty if it has not ended. Raises NetworkError."""
        question = {"jsonrpc": "2.0", "id": task_id, "method": "GetTask", "params": {"taskId": task_id}}
        reply = await self.call("/api/v1/rpc", question)
        found = reply.get("result")
        task = found.get("task", found) if isinstance(found, dict) else None
        state = task.get("state") if isinstance(task, dict) else None
        return state if state in ("completed", "failed", "canceled") else ""

    async def refresh_access(self) -> str:
        """A new access token, by a new connect if the refresh token has expired too. Raises NetworkError."""
        identity = self.file.identity
        try:
            reply = await self.api.request(
                "POST",
                "/api/v1/auth/agent/refresh",
                bearer=self._key(),
                body={"refreshToken": identity.refresh_token},
            )
        except NetworkError as error:
            if getattr(error, "code", "") != "REFRESH_TOKEN_INVALID":
                raise
            await self._connect()
        else:
            identity.access_token = str(reply.get("accessToken", ""))
            identity.refresh_token = str(reply.get("refreshToken", ""))
        self.file.save()
        return identity.access_token
