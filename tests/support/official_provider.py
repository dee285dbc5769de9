"""A card for the tests' handler, and the official provider runtime as a child process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from device_agent.testing.network import NetworkThread
from device_agent.testing.network.sdk import sdk_environment

HANDLER = Path(__file__).with_name("official_handler.py")
LIMIT_S = 15.0

STREAMS: dict[str, dict[str, Any]] = {
    "events": {"direction": "outbound", "format": "events", "schema": {}},
    "raw": {"direction": "outbound", "format": "bytes", "contentType": "application/octet-stream"},
    "upload": {"direction": "inbound", "format": "bytes", "contentType": "application/octet-stream"},
    "talk": {
        "direction": "bidirectional",
        "format": "events",
        "outboundSchema": {},
        "inboundSchema": {},
    },
    "shared": {"direction": "outbound", "format": "events", "affinity": "shared", "schema": {}},
}


def make_card(agent: str, concurrency: int, **runtime: Any) -> dict[str, Any]:
    """An agent card for the handler of these tests."""
    return {
        "identity": {
            "agentName": agent,
            "displayName": agent,
            "description": "Serves the tests of the stand-in.",
            "version": "1.0.0",
            "provider": {"organization": "Tests"},
        },
        "capabilities": {"taskKinds": ["request", "pipe"]},
        "tags": [{"id": "test", "name": "Test"}],
        "runtime": {"handler": "handler.py", "concurrency": concurrency, "expectedInstances": 1, **runtime},
        "io": {
            "inputs": [
                {"id": "request", "contentType": "application/json", "description": "what", "required": True},
                {
                    "id": "file",
                    "contentType": "application/octet-stream",
                    "description": "a file",
                    "required": False,
                    "maxSizeBytes": 1_000_000,
                },
            ],
            "outputs": [{"id": "result", "contentType": "application/json", "guaranteed": True}],
        },
        "streams": STREAMS,
    }


class Provider:
    """The official runtime as a child process."""

    def __init__(self, net: NetworkThread, folder: Path, card: dict[str, Any]) -> None:
        self.agent: str = card["identity"]["agentName"]
        net.call(net.net.register, self.agent, card)
        (folder / "agent-card.json").write_text(json.dumps(card))
        (folder / "handler.py").write_text(HANDLER.read_text())
        self.log = folder / "log.txt"
        environment = {
            **os.environ,
            **sdk_environment(net.net.cdm_url, net.net.pubnub_origin, "bk_device"),
            "AGENT_SHUTDOWN_GRACE_SEC": "0",
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "scripts.run_agent"],
                cwd=folder,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(LIMIT_S)


StartProvider = Callable[..., Provider]


def ask(client: Any, provider: Provider, request: dict[str, Any], *parts: Any, **options: Any) -> Any:
    """Send a task to the tests' handler; the caller's session."""
    first = {"partId": "request", "contentType": "application/json", "text": json.dumps(request)}
    return client.send_message(agent_name=provider.agent, request_parts=[first, *parts], **options)


def result(session: Any) -> Any:
    """The first artifact of a task that completes, as JSON."""
    assert session.wait_for_terminal(LIMIT_S)["state"] == "completed"
    return json.loads(session.download_artifact(session.list_artifacts()[0]).data)
