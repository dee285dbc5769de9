"""What a test can do to the stand-in and see of it; the HTTP form of a method is ``/_dev/call/<name>``."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

from aiohttp import web

from device_agent.testing.network.accounts import kinds_of
from device_agent.testing.network.backend import Backend
from device_agent.testing.network.faults import FaultRule, FaultRules
from device_agent.testing.network.http import Call, HttpError, reply
from device_agent.testing.network.links import Addressed, NetworkLink, NetworkLinks
from device_agent.testing.network.records import PublishRecord, RequestRecord
from device_agent.testing.network.registry import RegisteredAgent
from device_agent.testing.network.settings import KEY_SETS, PROTOCOL_VERSION
from device_agent.testing.network.tasks import Task


class Admin(Addressed):
    """The admin surface. Unknown names raise ValueError."""

    def __init__(self, backend: Backend, faults: FaultRules, links: NetworkLinks) -> None:
        self.backend = backend
        self.faults = faults
        self.links = links
        self.settings, self.records = backend.settings, backend.records
        self.wire, self.tokens = backend.wire, backend.tokens
        self.registry, self.accounts = backend.registry, backend.accounts

    @property
    def addresses(self) -> dict[str, str | int]:
        """Those of the main link."""
        return self.links["main"].addresses

    # -- links and faults ---------------------------------------------------------------------------------

    async def open_link(self, name: str, rtt_ms: float = 0.0) -> NetworkLink:
        """Open a second port to the same network, whose link can fail alone."""
        link = await self.links.open(name)
        link.rtt_s = rtt_ms / 1000
        return link

    def set_rtt(self, rtt_ms: float, link: str = "main") -> None:
        """Add a round trip to every request of a link."""
        self.links[link].rtt_s = rtt_ms / 1000

    def set_upload(self, bytes_per_s: float, link: str = "main") -> None:
        """Bound what all requests of a link together may bring; 0 ends that."""
        self.links[link].upload_bytes_per_s = bytes_per_s

    async def refuse(self, link: str = "main", for_s: float | None = None) -> None:
        """Refuse connections of a link and cut the open ones; for a time, or until :meth:`accept`.

        Through the HTTP surface of the same link only a refusal with ``for_s`` can end.
        """
        target = self.links[link]
        await target.refuse()
        if for_s is not None:
            await asyncio.sleep(for_s)
            await self.accept(link)

    async def accept(self, link: str = "main") -> None:
        """Take connections again, on the same port."""
        target = self.links[link]
        if target.listening is None:
            await target.listen()

    def add_fault(self, kind: str, path: str = "*", **options: Any) -> FaultRule:
        """Put a fault rule in force; see :class:`~device_agent.testing.network.faults.FaultRule`."""
        fault = self.faults.add(kind, path, **options)
        for hub in self.wire.hubs.values():
            for poll in hub.polls:
                poll.silenced = poll.silenced or self.faults.silences(fault, poll)
        return fault

    def heal(self, fault_id: str | None = None) -> int:
        """Take one fault rule, or all, out of force; how many. What was swallowed stays swallowed."""
        return self.faults.heal(fault_id)

    # -- tokens and keys ----------------------------------------------------------------------------------

    def set_token_ttl(self, kind: str, ttl_s: float | None) -> None:
        """Lifetime in seconds of tokens issued from now on: control, write, read, stream or access.

        ``None`` lets write and stream follow the task's duration again.
        """
        if kind not in ("control", "write", "read", "stream", "access"):
            raise ValueError(f"unknown token kind {kind!r}: one of control, write, read, stream, access")
        if ttl_s is None and kind not in ("write", "stream"):
            raise ValueError(f"{kind} tokens need a lifetime")
        setattr(self.settings.lifetimes, kind, ttl_s)

    def revoke_token(self, token: str) -> int:
        """Revoke one messaging token; long-polls held with it end with 403. How many were valid."""
        return self._rechecked(self.tokens.revoke(token))

    def revoke_tokens(self, kind: str, subject: str | None = None) -> int:
        """Revoke all tokens of a kind: control, write, read, stream, stream_provider, stream_consumer, access
        or refresh; ``subject`` narrows messaging tokens to one task or instance. How many."""
        if kind == "access":
            return self.accounts.revoke_access()
        if kind == "refresh":
            return self.accounts.revoke_refresh()
        kinds_of(kind)
        return self._rechecked(self.tokens.revoke_kind(kind, subject))

    def revoke_api_key(self, api_key: str) -> None:
        """The key is invalid from now on (``API_KEY_INVALID``), with all its access tokens."""
        self.accounts.revoke_key(api_key)

    def restore_api_key(self, api_key: str) -> None:
        """The key is valid again."""
        self.accounts.revoked_keys.discard(api_key)

    def force_offline(self, agent: str, *, fail_tasks: bool = True) -> None:
        """An administrator's forced-offline: refuses connect, refresh and new tasks, fails those underway."""
        target = self.agent(agent)
        target.forced_offline = True
        if fail_tasks:
            for task in self.backend.tasks.open_of(target):
                self.backend.publish_terminal(task, "failed", error="The agent was forced offline.")

    def allow_online(self, agent: str) -> None:
        """End a forced-offline."""
        target = self.agent(agent)
        target.forced_offline = False
        self.backend.dispatch(target)

    # -- agents and control messages ----------------------------------------------------------------------

    def register(
        self,
        agent: str,
        card: dict[str, Any] | None = None,
        *,
        listing: str = "private",
        billing_mode: str = "free",
        owner_org: str | None = None,
    ) -> RegisteredAgent:
        """Publish an agent, as the vendor's CLI would."""
        return self.registry.register(
            agent, card, listing=listing, billing_mode=billing_mode, owner_org=owner_org
        )

    def agent(self, agent: str) -> RegisteredAgent:
        """A registered agent."""
        found = self.registry.agents.get(agent)
        if found is None:
            raise ValueError(f"there is no agent {agent!r}")
        return found

    def send_control(
        self, agent: str, message: dict[str, Any], meta: Any = None, instance_id: str | None = None
    ) -> int:
        """Publish any JSON on an agent's control channel; the timetoken.

        Without ``meta`` it goes to ``instance_id``, or as a broadcast.
        """
        target = self.agent(agent)
        if meta is not None:
            return self.wire.send(target.environment, target.control_channel, message, meta)
        return self.backend.control(target, message, instance_id=instance_id)

    def resend_start(self, task_id: str) -> int:
        """Deliver a task's StartTask once more, with fresh tokens; the timetoken."""
        task = self.task(task_id)
        task.dispatches += 1
        return self.backend.control(
            task.agent, self.backend.start_message(task), instance_id=task.instance_id
        )

    def expire_task(self, task_id: str) -> None:
        """The task's time is over now."""
        self.backend.expire(self.task(task_id))

    def switch_environment(self, agent: str, environment: str) -> None:
        """Move an agent to the other key set: SwitchEnvironment on the old one, new tasks on the new one."""
        target = self.agent(agent)
        if environment not in KEY_SETS:
            raise ValueError(f"unknown environment {environment!r}: one of {', '.join(KEY_SETS)}")
        message = {
            "type": "SwitchEnvironment",
            "environment": environment,
            "pamToken": self.backend.control_token(target, "", environment),
            "protocolVersion": PROTOCOL_VERSION,
        }
        self.backend.control(target, message, instance_id=None)
        target.environment = environment

    def set_fingerprint(self, task_id: str, fingerprint: str) -> None:
        """Let an anonymous reader with that fingerprint see the task."""
        self.task(task_id).fingerprint = fingerprint

    # -- seeing -------------------------------------------------------------------------------------------

    def tasks(self) -> list[Task]:
        """All tasks, oldest first."""
        return self.backend.tasks.all()

    def task(self, task_id: str) -> Task:
        """One task."""
        found = self.backend.tasks.get(task_id)
        if found is None:
            raise ValueError(f"there is no task {task_id!r}")
        return found

    def presence(self, environment: str = "playground") -> dict[str, list[dict[str, Any]]]:
        """Live clients by channel."""
        if environment not in KEY_SETS:
            raise ValueError(f"unknown environment {environment!r}: one of {', '.join(KEY_SETS)}")
        return self.wire.presence[environment].table()

    def publishes(self, channel: str | None = None, *, refused: bool = False) -> list[PublishRecord]:
        """Recorded publishes of a channel, or of all; ``refused`` adds setup requests."""
        return self.records.publishes(channel, refused=refused)

    def publish_count(self, channel: str) -> int:
        """How many publishes a channel ever accepted, however many are still recorded."""
        return self.records.counts[channel]

    def requests(self, path: str = "*") -> list[RequestRecord]:
        """Recorded requests whose path matches, oldest first."""
        return self.records.requests_of(path)

    def polls(self) -> int:
        """How many long-polls are held now."""
        return sum(len(hub.polls) for hub in self.wire.hubs.values())

    def clear_records(self) -> None:
        """Forget recorded publishes, counts and requests."""
        self.records.clear()

    async def wait_for(self, condition: Callable[[], Any], timeout_s: float = 10.0) -> Any:
        """Wait until a condition on this object is true, and return its value; TimeoutError after that."""
        return await self.records.wait_for(condition, timeout_s)

    async def wait_joined(self, agent: str, instances: int = 1, timeout_s: float = 10.0) -> list[str]:
        """Wait until that many instances of an agent are present, have a state and listen; their ids.

        The official runtime restarts its first subscribe with every state that it sets, and what is sent
        before its first long-poll is held can pass it by.
        """

        def joined() -> list[str]:
            found = self.registry.agents.get(agent)
            if found is None:
                return []
            channel, polls = found.control_channel, self.wire.hubs[found.environment].polls
            listening = {p.uuid for p in polls if channel in p.channels}
            live = self.wire.presence[found.environment].live(channel)
            ids = [o.uuid for o in live if o.uuid in found.instances and o.uuid in listening and o.state]
            return ids if len(ids) >= instances else []

        return list(await self.wait_for(joined, timeout_s))

    async def wait_task(self, task_id: str, state: str = "ended", timeout_s: float = 10.0) -> Task:
        """Wait until a task is in a state, or has ended in any; the task."""
        task = self.task(task_id)
        await self.wait_for(lambda: task.ended if state == "ended" else task.state == state, timeout_s)
        return task

    def _rechecked(self, count: int) -> int:
        if count:
            self.wire.recheck()
        return count


METHODS = {name for name, value in vars(Admin).items() if callable(value) and name[0] != "_"} - {"wait_for"}
"""The methods of :class:`Admin` that can be called over HTTP: all but the one that takes a function."""


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
        except HttpError as refused:
            return reply(refused.body, refused.status)
        return reply({"error": "There is no such address."}, 404)

    async def _call(self, name: str, arguments: dict[str, Any]) -> Any:
        if name == "set":
            return self._set(arguments)
        if name not in METHODS:
            raise ValueError(f"there is no method {name!r}")
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
        views: dict[str, Callable[[], Any]] = {
            "addresses": lambda: admin.addresses,
            "agents": lambda: list(admin.registry.agents.values()),
            "tasks": admin.tasks,
            "presence": lambda: admin.presence(query.get("environment", "playground")),
            "publishes": lambda: [
                record
                for record in admin.publishes(query.get("channel"), refused=query.get("refused") == "1")
                if record.timetoken > int(query.get("after", "0"))
            ],
            "requests": lambda: admin.requests(query.get("path", "*")),
            "tokens": admin.tokens.table,
            "faults": lambda: admin.faults.rules,
            "settings": lambda: admin.settings,
        }
        if name not in views:
            raise ValueError(f"there is no view {name!r}")
        return views[name]()


def to_json(value: Any) -> Any:
    """Objects of the stand-in as JSON."""
    if isinstance(value, list):
        return [to_json(v) for v in value]
    if isinstance(value, NetworkLink):
        return value.addresses
    if isinstance(value, Task):
        return value.to_dict()
    if isinstance(value, RegisteredAgent):
        shown = ("agent_id", "control_channel", "environment", "owner_org", "forced_offline", "connects")
        return value.to_wire() | {n: getattr(value, n) for n in shown} | {"instances": list(value.instances)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        members = {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
        members = {name: member for name, member in members.items() if not name.startswith("_")}
        return members | {"body": value.body} if isinstance(value, PublishRecord) else members
    return value
