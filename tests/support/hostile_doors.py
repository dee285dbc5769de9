"""How a hostile caller gets in by each door: each is a `Send`, and real programs on both ends."""

import asyncio
import hashlib
import itertools
import json
import re
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import Future
from http.client import HTTPResponse
from typing import Any

from device_agent.operate.control_socket import ask, pack
from support.broker_client import BrokerClient
from support.callers import Listening, question, result
from support.deployment import AGENT, World
from support.hostile_callers import Send
from support.waiting import LIMIT_S, until

Ack = dict[str, Any]
# Farther back than any jump of the daemon's clock.
LONG_S = 2 * 86_400


class Acks:
    """Answers that come by themselves, for the lanes of one caller that wait for them by id."""

    def __init__(self) -> None:
        self._came: dict[str, list[Ack]] = {}
        self._new = threading.Condition()

    def put(self, id_: str, ack: Ack) -> None:
        with self._new:
            self._came.setdefault(id_, []).append(ack)
            self._new.notify_all()

    def take(self, id_: str) -> Ack:
        with self._new:
            if not self._new.wait_for(lambda: id_ in self._came, 2 * LIMIT_S):
                raise AssertionError(f"no ack of {id_}")
            return self._came.pop(id_)[0]


class Streaming:
    """An official caller's stream."""

    def __init__(self, listening: Listening) -> None:
        self.acks = Acks()
        self._stream = listening.stream
        self._writing = threading.Lock()
        self._listening = listening
        listening.wait("control", about="session")
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        """Events may come twice, with the same number."""
        known: set[int] = set()
        for at in itertools.count():
            event = until(lambda at=at: self._listening.events[at : at + 1], "an event", float("inf"))[0]
            if event["kind"] == "ack" and event["seq"] not in known:
                self.acks.put(event["id"], event)
            known.add(event["seq"])

    def write(self, command: dict[str, Any]) -> None:
        with self._writing:
            self._stream.write(command)

    def send(self, command: dict[str, Any]) -> Ack:
        self.write(command)
        return self.acks.take(command["id"])


def asking(world: World, client: Any) -> Send:
    """By request tasks; each is a command of its own."""

    def send(command: dict[str, Any]) -> Ack:
        body = {name: value for name, value in command.items() if name not in ("kind", "id", "ttl_ms")}
        asked = question(client, {"op": command["kind"], **body})
        if asked.list_artifacts():
            found = result(asked)
        else:
            found = _published(world, asked)
        return dict(found.get("ack") or {"state": found["state"], "error": found["error"]})

    return send


def from_long_ago(send: Send) -> Send:
    """By the sender's own clock, which the doors of this machine are told (`at`)."""
    return lambda command: send({**command, "at": (time.time() - LONG_S) * 1000})


def _published(world: World, asked: Any) -> Any:
    """The result as the network has it: a client on a busy machine now and then has an end without it."""
    from blocks_network.task_session import ArtifactRef

    records = world.net.net.wire.records.publishes()
    events = [json.loads(one.raw) for one in records if one.channel.endswith(asked.task_id)]
    references = [
        ArtifactRef.from_dict(one["artifactRef"]) for one in events if one.get("type") == "artifact"
    ]
    assert references, f"a request without a result: {events}"
    print(f"published, and not at its client: {[one.get('type') for one in events]} of {asked.task_id}")
    return json.loads(asked.download_artifact(references[0]).data)


def _ack_in(answer: dict[str, Any]) -> Ack:
    return dict(answer["result"]) if answer["ok"] else {"state": "rejected", "error": answer["error"]}


class AtSocket:
    """On the device: the owner, or a program that says which door it is (`as`)."""

    def __init__(self, world: World, **by: str) -> None:
        self._path = world.folder / "state/run/control.sock"
        self._by = by

    def _question(self, command: dict[str, Any]) -> dict[str, Any]:
        return {"op": command["kind"], **{k: v for k, v in command.items() if k != "kind"}, **self._by}

    def send(self, command: dict[str, Any]) -> Ack:
        return _ack_in(ask(self._path, self._question(command), LIMIT_S))

    def send_only(self, command: dict[str, Any]) -> None:
        """And hang up."""
        with socket.socket(socket.AF_UNIX) as channel:
            channel.connect(str(self._path))
            channel.sendall(pack(self._question(command)))


class OnPage:
    """As the page's script does."""

    def __init__(self, port: int) -> None:
        self._address = f"http://127.0.0.1:{port}"
        self._token = self._fetch("/").partition('name="page-token" content="')[2].partition('"')[0]

    def _fetch(self, path: str, body: bytes | None = None, token: str = "", **headers: str) -> str:
        asked = urllib.request.Request(self._address + path, body, {"X-Page-Token": token, **headers})
        answer: HTTPResponse
        with urllib.request.urlopen(asked, timeout=LIMIT_S) as answer:
            return answer.read().decode()

    def _body(self, command: dict[str, Any]) -> bytes:
        asked = {"op": command["kind"], **{k: v for k, v in command.items() if k != "kind"}}
        return json.dumps(asked).encode()

    def send(self, command: dict[str, Any]) -> Ack:
        return _ack_in(json.loads(self._fetch("/api/ask", self._body(command), self._token)))

    def foreign(self, command: dict[str, Any]) -> Ack:
        """From another site, which has no token."""
        try:
            return _ack_in(
                json.loads(self._fetch("/api/ask", self._body(command), Origin="http://evil.test"))
            )
        except urllib.error.HTTPError as error:
            with error:
                return {
                    "state": "rejected",
                    "error": {"code": str(error.code), "message": error.read().decode()},
                }


class AtBroker(BrokerClient):
    """Any client of the broker; each command has a response topic of MQTT 5."""

    def __init__(self, port: int) -> None:
        self.acks = Acks()
        super().__init__(port, "hostile/acks")

    def _take(self, client: Any, data: Any, message: Any) -> None:
        self.acks.put(message.properties.CorrelationData.decode(), json.loads(message.payload))

    def send_only(self, command: dict[str, Any]) -> None:
        ((point, value),) = command["values"].items()
        body = {name: command[name] for name in ("id", "ttl_ms", "dry_run", "at") if name in command}
        properties = {"ResponseTopic": "hostile/acks", "CorrelationData": command["id"].encode()}
        topic = f"device-agent/{AGENT}/{command['device']}/{point}/set"
        self.publish(topic, {"value": value, **body}, **properties)

    def send(self, command: dict[str, Any]) -> Ack:
        self.send_only(command)
        return self.acks.take(command["id"])


class Assistant:
    """A client of `device-agent mcp`, a process of its own, that announces itself by this name."""

    def __init__(self, world: World, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._client: Future[Any] = Future()
        self._over = asyncio.Event()
        self._thread = threading.Thread(
            target=self._loop.run_until_complete, args=(self._serve(world, name),)
        )
        self._thread.start()

    async def _serve(self, world: World, name: str) -> None:
        import mcp

        words = ["-m", "device_agent", "--config", str(world.config), "mcp"]
        server = mcp.StdioServerParameters(command=sys.executable, args=words)
        try:
            async with mcp.Client(
                server, client_info=mcp.types.Implementation(name=name, version="1")
            ) as client:
                self._client.set_result(client)
                await self._over.wait()
        except Exception as error:
            if self._client.done():
                raise
            self._client.set_exception(error)

    def send(self, command: dict[str, Any]) -> Ack:
        """Its ids have a form of their own."""
        asked = {name: command[name] for name in ("device", "values", "dry_run") if name in command}
        asked["id"] = f"mcp-{hashlib.blake2b(command['id'].encode(), digest_size=6).hexdigest()}"
        calling = self._client.result(LIMIT_S).call_tool(command["kind"], asked)
        answer = asyncio.run_coroutine_threadsafe(calling, self._loop).result(2 * LIMIT_S)
        said = "\n".join(part.text for part in answer.content)
        for line in said.splitlines():
            if line.startswith("{"):
                return dict(json.loads(line))
        code, _, message = re.sub(r"^Error executing tool \w+: ", "", said).partition(": ")
        return {"state": "rejected", "error": {"code": code, "message": message}}

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(LIMIT_S)
        self._loop.close()
