"""Fixtures for whoever watches the daemon from the network's side: the stand-in, and official callers."""

import gc
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from device_agent.testing.network import NetworkThread, Settings
from device_agent.testing.network.sdk import sdk_environment
from support.deployment import AGENT
from support.official_client import official_sockets
from support.waiting import LIMIT_S, until


@contextmanager
def network(settings: Settings) -> Iterator[NetworkThread]:
    """A network, and the environment in which the official SDK of this process reaches it."""
    with (
        official_sockets(),
        NetworkThread(settings=settings) as host,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in sdk_environment(host.net.cdm_url, host.net.pubnub_origin, "bk_alice").items():
            patch.setenv(name, value)
        yield host


@pytest.fixture(scope="module")
def net() -> Iterator[NetworkThread]:
    """One network for the tests of a module."""
    with network(Settings(safety_grace_s=5.0, hold_s=20.0, auto_register=True)) as host:
        yield host


@pytest.fixture
def caller(net: NetworkThread) -> Iterator[Callable[..., Any]]:
    """Makes official callers: `caller("alice")`."""
    from blocks_network import TaskClient

    def make(name: str = "alice") -> Any:
        clients.append(TaskClient.create(billing_mode="free", api_key=f"bk_{name}"))
        return clients[-1]

    clients: list[Any] = []
    yield make
    for client in clients:
        client.destroy()
    gc.collect()


@pytest.fixture
def alice(caller: Callable[..., Any]) -> Any:
    return caller("alice")


class Listening:
    """An opened stream of the official SDK, read in a thread."""

    def __init__(self, reference: Any) -> None:
        self.stream = reference.open()
        self.format = reference.descriptor.format
        self.events: list[Any] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        items = self.stream.bytes() if self.format == "bytes" else self.stream.events()
        for item in items:
            self.events.append(item)

    def of(self, kind: str, **members: Any) -> list[dict[str, Any]]:
        return [
            event
            for event in list(self.events)
            if event["kind"] == kind and all(event.get(name) == value for name, value in members.items())
        ]

    def wait(self, kind: str, limit_s: float = LIMIT_S, **members: Any) -> dict[str, Any]:
        """The first event of this kind with these members."""
        found = until(lambda: self.of(kind, **members), f"{kind} {members} in {self.events[-5:]}", limit_s)
        return found[0]  # type: ignore[no-any-return]

    def command(self, **members: Any) -> dict[str, Any]:
        """Send a command and wait for its ack."""
        self.stream.write(members)
        return self.wait("ack", id=members["id"])


def pipe(client: Any, request: Mapping[str, Any] | None = None, duration: int = 5) -> Any:
    """Open a pipe session; the official caller's session object."""
    parts = []
    if request is not None:
        parts = [{"partId": "request", "contentType": "application/json", "text": json.dumps(request)}]
    return client.send_message(agent_name=AGENT, request_parts=parts, task_kind="pipe", duration=duration)


def stream(session: Any, name: str) -> Listening:
    return Listening(session.wait_for_stream(name, timeout=LIMIT_S))


def question(client: Any, body: Any) -> Any:
    """A request task; the caller's session after its terminal."""
    text = body if isinstance(body, str) else json.dumps(body)
    part = {"partId": "request", "contentType": "application/json", "text": text}
    session = client.send_message(agent_name=AGENT, request_parts=[part])
    session.terminal = session.wait_for_terminal(LIMIT_S)
    return session


def result(session: Any) -> Any:
    """The `result` artifact of a request task."""
    return json.loads(session.download_artifact(session.list_artifacts()[0]).data)
