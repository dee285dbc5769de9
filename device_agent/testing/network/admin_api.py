"""The admin surface over HTTP, for tests that drive processes; never subject to faults or latency.

``POST /_dev/call/<method>`` with the keyword arguments as JSON object answers ``{"result": …}``, or 400 with
``{"error"}``. ``GET /_dev/addresses``, ``/agents``, ``/tasks``, ``/presence?environment=``,
``/publishes?channel=&refused=1&after=<timetoken>``, ``/requests?path=``, ``/tokens``, ``/faults`` and
``/settings`` answer ``{"result": …}`` too.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
from typing import Any

from aiohttp import web

from device_agent.testing.network.admin import Admin
from device_agent.testing.network.calls import Call
from device_agent.testing.network.faults import Fault
from device_agent.testing.network.links import Link
from device_agent.testing.network.records import PublishRecord, RequestRecord
from device_agent.testing.network.registry import Agent
from device_agent.testing.network.replies import Refused, reply
from device_agent.testing.network.tasks import Task

METHODS = frozenset(
    {
        "open_link",
        "set_rtt",
        "refuse",
        "accept",
        "add_fault",
        "heal",
        "set_token_ttl",
        "revoke_token",
        "revoke_tokens",
        "revoke_api_key",
        "restore_api_key",
        "force_offline",
        "allow_online",
        "register",
        "agent",
        "send_control",
        "resend_start",
        "expire_task",
        "switch_environment",
        "set_fingerprint",
        "task",
        "publish_count",
        "polls",
        "clear_records",
        "wait_joined",
        "wait_task",
    }
)
"""The methods of :class:`Admin` that can be called over HTTP; ``set`` changes one of the settings."""


class AdminApi:
    """Serves ``/_dev/``."""

    def __init__(self, admin: Admin) -> None:
        self._admin = admin
        self._background: set[asyncio.Task[None]] = set()

    async def answer(self, call: Call) -> web.Response:
        """One admin request."""
        try:
            tail = call.segments[1:]
            if call.method == "POST" and len(tail) == 2 and tail[0] == "call":
                return reply({"result": to_json(await self._call(tail[1], await call.json()))})
            if call.method == "GET" and len(tail) == 1:
                return reply({"result": to_json(self._view(tail[0], call))})
        except (ValueError, TypeError) as error:
            return reply({"error": str(error)}, 400)
        except TimeoutError as error:
            return reply({"error": str(error)}, 408)
        except Refused as refused:
            return reply(refused.body, refused.status)
        return reply({"error": "There is no such address."}, 404)

    async def _call(self, name: str, arguments: dict[str, Any]) -> Any:
        if name == "set":
            return self._set(arguments)
        if name not in METHODS:
            raise ValueError(f"there is no method {name!r}: one of set, {', '.join(sorted(METHODS))}")
        if name == "refuse":
            # The answer has to go out before the link that carries it is cut.
            work = asyncio.get_running_loop().create_task(self._refuse_soon(arguments))
            self._background.add(work)
            work.add_done_callback(self._background.discard)
            return None
        result = getattr(self._admin, name)(**arguments)
        return await result if inspect.isawaitable(result) else result

    async def _refuse_soon(self, arguments: dict[str, Any]) -> None:
        await asyncio.sleep(0.05)
        await self._admin.refuse(**arguments)

    def _set(self, arguments: dict[str, Any]) -> None:
        settings = self._admin.settings
        for name, value in arguments.items():
            if name == "lifetimes" or not hasattr(settings, name):
                raise ValueError(f"there is no setting {name!r}")
            setattr(settings, name, value)

    def _view(self, name: str, call: Call) -> Any:
        admin, query = self._admin, call.query
        if name == "addresses":
            return admin.links["main"].addresses
        if name == "agents":
            return list(admin.registry.agents.values())
        if name == "tasks":
            return admin.tasks()
        if name == "presence":
            return admin.presence(query.get("environment", "playground"))
        if name == "publishes":
            after = int(query.get("after", "0"))
            found = admin.publishes(query.get("channel"), refused=query.get("refused") == "1")
            return [r for r in found if r.timetoken > after]
        if name == "requests":
            return admin.requests(query.get("path", "*"))
        if name == "tokens":
            return admin.tokens.table()
        if name == "faults":
            return admin.faults.rules
        if name == "settings":
            return admin.settings
        raise ValueError(f"there is no view {name!r}")


def to_json(value: Any) -> Any:
    """Objects of the stand-in as JSON."""
    if isinstance(value, (PublishRecord, Task, Fault)):
        return value.to_dict()
    if isinstance(value, Link):
        return value.addresses
    if isinstance(value, Agent):
        shown = ("agent_id", "control_channel", "environment", "owner_org", "forced_offline", "connects")
        return value.to_wire() | {n: getattr(value, n) for n in shown} | {"instances": list(value.instances)}
    if isinstance(value, RequestRecord) or (dataclasses.is_dataclass(value) and not isinstance(value, type)):
        return dataclasses.asdict(value)
    if isinstance(value, list):
        return [to_json(v) for v in value]
    return value
