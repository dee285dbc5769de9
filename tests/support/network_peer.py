"""Bare clients, one request at a time, for tests of what the stand-in itself does."""

from __future__ import annotations

import asyncio
import json
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode

import aiohttp

from device_agent.testing.network import DevNetwork
from device_agent.testing.network.settings import KEY_SETS

LIMIT_S = 10.0


class Peer:
    """A user id with a token for some channels (``{name: bits}``)."""

    def __init__(
        self,
        net: DevNetwork,
        grants: dict[str, int] | None = None,
        *,
        uuid: str = "peer",
        token: str = "",
        environment: str = "playground",
        origin: str = "",
        ttl_s: float = 60.0,
    ) -> None:
        self.publish_key, self.subscribe_key = KEY_SETS[environment]
        self.base = f"http://{origin or net.pubnub_origin}"
        self.uuid = uuid
        self.token = token or net.tokens.issue("write", environment, grants or {}, ttl_s).token
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=LIMIT_S))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def ask(self, method: str, path: str, data: Any = None, headers: Any = None, **query: Any) -> Any:
        """Status and JSON of any request; ``auth`` and ``uuid`` are added."""
        text = urlencode({"uuid": self.uuid, "auth": self.token, **query})
        async with self._session.request(
            method, f"{self.base}{path}?{text}", data=data, headers=headers, allow_redirects=False
        ) as response:
            body = await response.read()
            return response.status, json.loads(body) if body else dict(response.headers)

    async def publish(self, channel: str, message: Any, *, store: int = 1, meta: Any = None) -> Any:
        """POST; status and body."""
        query: dict[str, Any] = {"store": store}
        if meta is not None:
            query["meta"] = json.dumps(meta)
        path = f"/publish/{self.publish_key}/{self.subscribe_key}/0/{quote(channel, safe='')}/0"
        return await self.ask("POST", path, json.dumps(message), **query)

    async def subscribe(self, *channels: str, tt: int | str = 0, **query: Any) -> tuple[int, list[Any]]:
        """One successful subscribe: next timetoken and messages."""
        status, body = await self.try_subscribe(*channels, tt=tt, **query)
        assert status == 200, body
        return int(body["t"]["t"]), body["m"]

    async def try_subscribe(self, *channels: str, tt: int | str = 0, **query: Any) -> Any:
        """One subscribe: status and body."""
        names = ",".join(quote(c, safe="") for c in channels)
        return await self.ask("GET", f"/v2/subscribe/{self.subscribe_key}/{names}/0", tt=tt, **query)

    async def history(self, *channels: str, **query: Any) -> dict[str, list[Any]]:
        """One page of history by channel."""
        names = ",".join(quote(c, safe="") for c in channels)
        path = f"/v3/history/sub-key/{self.subscribe_key}/channel/{names}"
        status, body = await self.ask("GET", path, **query)
        assert status == 200, body
        return dict(body["channels"])

    async def presence(self, channel: str, *tail: str, **query: Any) -> Any:
        """Any presence request: status and body."""
        path = "/".join([f"/v2/presence/sub-key/{self.subscribe_key}/channel/{channel}", *tail])
        return await self.ask("GET", path, **query)


async def held(net: DevNetwork, work: Any, polls: int = 1) -> asyncio.Task[Any]:
    """Start a request and wait until the network holds that many long-polls."""
    task = asyncio.ensure_future(work)
    await net.wait_for(lambda: task.done() or net.polls() >= polls, LIMIT_S)
    return task


class Api:
    """A bare client of the backend API."""

    def __init__(self, net: DevNetwork, key: str = "bk_device", origin: str = "") -> None:
        self.base = f"http://{origin or net.pubnub_origin}"
        self.key = key
        self.access = ""
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=LIMIT_S))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def ask(self, method: str, path: str, body: Any = None, bearer: str | None = None) -> Any:
        """Status and JSON; the bearer is the access token, the key, or what is given ("" = none)."""
        bearer = (self.access or self.key) if bearer is None else bearer
        headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        async with self._session.request(method, self.base + path, json=body, headers=headers) as response:
            return response.status, json.loads(await response.read() or b"null")

    async def connect(self, agent: str, instance: str = "AG-1", **payload: Any) -> dict[str, Any]:
        """Log an instance in; the answer. Its access token is used from then on."""
        body = {"agentName": agent, "instanceId": instance, "billingMode": "free", **payload}
        status, answer = await self.ask("POST", "/api/v1/auth/agent/connect", body, bearer=self.key)
        assert status == 200, answer
        self.access = answer["accessToken"]
        return dict(answer)

    async def log_in(self) -> dict[str, Any]:
        """Log a caller in; the answer."""
        status, answer = await self.ask("POST", "/api/v1/auth/agent/consumer-token", {"apiKey": self.key}, "")
        assert status == 200, answer
        self.access = answer["accessToken"]
        return dict(answer)

    async def rpc(self, method: str, **params: Any) -> dict[str, Any]:
        """An RPC: the whole answer."""
        body = {"jsonrpc": "2.0", "id": "1", "method": method, "params": params}
        status, answer = await self.ask("POST", "/api/v1/rpc", body)
        assert status == 200, answer
        return dict(answer)

    async def send(self, agent: str, *parts: Any, blocks: Any = None, **params: Any) -> dict[str, Any]:
        """SendMessage: its result."""
        answer = await self.rpc(
            "SendMessage",
            agentName=agent,
            billingMode="free",
            requestParts=list(parts),
            extensions={"blocks": blocks or {}},
            **params,
        )
        assert "result" in answer, answer
        return dict(answer["result"])


async def join(net: DevNetwork, api: Api, agent: str, instance: str = "AG-1", **payload: Any) -> Peer:
    """Connect an instance and make it present; a peer with its control token."""
    answer = await api.connect(agent, instance, **payload)
    peer = Peer(net, uuid=instance, token=answer["pamToken"])
    await peer.subscribe(answer["controlChannel"])
    await state(peer, answer["controlChannel"], 0, payload.get("concurrency", 1))
    return peer


async def state(peer: Peer, channel: str, active: int, concurrency: int = 1) -> None:
    """Set an instance's presence state."""
    text = json.dumps({"instanceId": peer.uuid, "activeTasks": active, "concurrency": concurrency})
    status, body = await peer.presence(channel, "uuid", peer.uuid, "data", state=text)
    assert status == 200, body
