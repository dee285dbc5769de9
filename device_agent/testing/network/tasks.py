"""The task table, and which instance gets a task (docs/protocol.md)."""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from device_agent.records import is_whole
from device_agent.testing.network.channels import Occupant, now_ms
from device_agent.testing.network.registry import RegisteredAgent

TERMINAL_STATES = frozenset({"completed", "failed", "canceled"})
_KEPT_TERMINALS = 20


@dataclass(slots=True, eq=False)
class Task:
    """One task. Times are epoch milliseconds; ``ending`` names the command that should end it."""

    task_id: str
    agent: RegisteredAgent
    environment: str
    owner_id: str
    user_id: str
    org_id: str
    kind: str
    parts: list[dict[str, Any]]
    has_stream: bool
    claims: dict[str, Any]
    duration_minutes: int | None = None
    consumer_public_key: str | None = None
    expires_at_ms: int | None = None
    fingerprint: str | None = None
    state: str = "pending"
    queued: bool = False
    instance_id: str | None = None
    dispatches: int = 0
    created_ms: int = field(default_factory=now_ms)
    updated_ms: int = field(default_factory=now_ms)
    terminals: list[dict[str, Any]] = field(default_factory=list)
    streams: dict[str, dict[str, Any]] = field(default_factory=dict)
    stream_tokens: list[str] = field(default_factory=list)
    ending: str = ""
    timers: list[asyncio.TimerHandle] = field(default_factory=list)

    @property
    def channel(self) -> str:
        """The task (status) channel."""
        return f"u.{self.org_id}.{self.task_id}"

    @property
    def ended(self) -> bool:
        """Whether a terminal was seen."""
        return self.state in TERMINAL_STATES

    def saw(self, event: dict[str, Any], uuid: str) -> bool:
        """Take in an event of the task channel; whether it changed the state."""
        kind = event.get("type")
        if kind == "terminal":
            self.terminals = [*self.terminals[: _KEPT_TERMINALS - 1], event]
            if self.ended or event.get("state") not in TERMINAL_STATES:
                return False
            self.state = str(event["state"])
        elif kind == "progress" and event.get("state") == "running" and self.state == "pending":
            self.state = "running"
            if uuid in self.agent.instances:
                self.instance_id = uuid
        else:
            return False
        self.updated_ms = now_ms()
        return True

    def stop_timers(self) -> None:
        """Cancel what was planned for the task."""
        for timer in self.timers:
            timer.cancel()
        self.timers.clear()

    def to_wire(self) -> dict[str, Any]:
        """The RPC form of the task."""
        return {
            "taskId": self.task_id,
            "agentName": self.agent.name,
            "owner": self.owner_id,
            "state": self.state,
            "taskKind": self.kind,
            "createdTime": self.created_ms,
            "updatedTime": self.updated_ms,
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything about the task, for tests."""
        return {
            **self.to_wire(),
            "orgId": self.org_id,
            "channel": self.channel,
            "environment": self.environment,
            "queued": self.queued,
            "instanceId": self.instance_id,
            "dispatches": self.dispatches,
            "hasStream": self.has_stream,
            "durationExpiresAtMs": self.expires_at_ms,
            "terminals": self.terminals,
            "streams": self.streams,
            "ending": self.ending,
        }


class TaskTable:
    """All tasks by id; the oldest ended ones are forgotten first."""

    def __init__(self, max_tasks: int) -> None:
        self._max_tasks = max_tasks
        self._tasks: OrderedDict[str, Task] = OrderedDict()
        self._by_channel: dict[str, Task] = {}
        self._by_key: dict[tuple[str, str, str], str] = {}
        self._open: dict[str, dict[str, Task]] = {}

    def new_id(self) -> str:
        """A task id that was not used."""
        return f"tsk{secrets.token_hex(10)}"

    def add(self, task: Task, idempotency_key: str | None) -> None:
        """Keep a task."""
        self._tasks[task.task_id] = task
        self._by_channel[task.channel] = task
        self._open.setdefault(task.agent.name, {})[task.task_id] = task
        if idempotency_key:
            self._by_key[task.org_id, task.agent.name, idempotency_key] = task.task_id
        if len(self._tasks) > self._max_tasks:
            self._forget()

    def get(self, task_id: str) -> Task | None:
        """The task of an id."""
        return self._tasks.get(task_id)

    def by_channel(self, channel: str) -> Task | None:
        """The task of a task channel."""
        return self._by_channel.get(channel)

    def by_key(self, org_id: str, agent: str, idempotency_key: str) -> Task | None:
        """The task that was made with an idempotency key."""
        return self._tasks.get(self._by_key.get((org_id, agent, idempotency_key), ""))

    def all(self) -> list[Task]:
        """All tasks, oldest first."""
        return list(self._tasks.values())

    def open_of(self, agent: RegisteredAgent) -> list[Task]:
        """The tasks of an agent that have not ended, oldest first."""
        return list(self._open.get(agent.name, {}).values())

    def close(self, task: Task) -> None:
        """The task has ended."""
        task.stop_timers()
        self._open.get(task.agent.name, {}).pop(task.task_id, None)

    def _forget(self) -> None:
        oldest = next((t for t in self._tasks.values() if t.ended), next(iter(self._tasks.values())))
        self.close(oldest)
        del self._tasks[oldest.task_id]
        self._by_channel.pop(oldest.channel, None)
        self._by_key = {k: v for k, v in self._by_key.items() if v != oldest.task_id}


@dataclass(slots=True, frozen=True)
class Candidate:
    """A live instance. ``concurrency`` 0 means unlimited."""

    instance_id: str
    load: int
    concurrency: int
    joined_s: float

    @property
    def free(self) -> bool:
        """Whether it has room for one more task."""
        return self.concurrency == 0 or self.load < self.concurrency

    @property
    def rank(self) -> tuple[float, int, float]:
        """Lower is better: share of its room in use, tasks, then who was there first."""
        share = self.load / self.concurrency if self.concurrency else 0.0
        return share, self.load, self.joined_s


def candidates(
    agent: RegisteredAgent, occupants: Iterable[Occupant], open_tasks: Iterable[Task]
) -> list[Candidate]:
    """The live instances of an agent.

    Load is what the instance states, plus the tasks that were sent to it and have shown no event yet: its
    presence state cannot know of those.
    """
    underway: dict[str, int] = {}
    for task in open_tasks:
        if task.state == "pending" and task.instance_id is not None:
            underway[task.instance_id] = underway.get(task.instance_id, 0) + 1
    found: list[Candidate] = []
    for occupant in occupants:
        if occupant.uuid not in agent.instances:
            continue
        active = _count(occupant.state.get("activeTasks"), 0)
        concurrency = _count(occupant.state.get("concurrency"), agent.instances[occupant.uuid])
        load = active + underway.get(occupant.uuid, 0)
        found.append(Candidate(occupant.uuid, load, concurrency, occupant.joined_s))
    return found


def choose(found: list[Candidate]) -> Candidate | None:
    """The best free candidate, or ``None``."""
    return min((c for c in found if c.free), key=lambda c: c.rank, default=None)


def _count(value: object, default: int) -> int:
    return value if is_whole(value) and value >= 0 else default
