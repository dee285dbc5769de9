"""The official SDK on both sides: request tasks."""

from __future__ import annotations

import json
from typing import Any

import pytest
from devnet_support import LIMIT_S, Provider

from device_agent.testing.network import NetworkThread

pytestmark = pytest.mark.filterwarnings("ignore:Mutable config:DeprecationWarning")


def ask(client: Any, provider: Provider, request: dict[str, Any], *parts: Any, **options: Any) -> Any:
    first = {"partId": "request", "contentType": "application/json", "text": json.dumps(request)}
    return client.send_message(agent_name=provider.agent, request_parts=[first, *parts], **options)


def result(session: Any) -> Any:
    """The first artifact, as JSON."""
    assert session.wait_for_terminal(LIMIT_S)["state"] == "completed"
    return json.loads(session.download_artifact(session.list_artifacts()[0]).data)


def test_inline_artifact_comes_back(net: NetworkThread, worker: Provider, client: Any) -> None:
    session = ask(client, worker, {"op": "echo", "text": "hello"})
    assert result(session) == {"echo": "hello"}
