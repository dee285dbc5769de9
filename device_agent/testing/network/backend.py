"""The backend's part: starting, ending and closing tasks through control messages (docs/protocol.md)."""

from __future__ import annotations

import asyncio
from typing import Any

from device_agent.testing.network.accounts import READ, WRITE, Accounts, Tokens
from device_agent.testing.network.channels import Wire, now_ms
from device_agent.testing.network.files import FileStore
from device_agent.testing.network.records import Records
from device_agent.testing.network.registry import RegisteredAgent, Registry
from device_agent.testing.network.settings import PROTOCOL_VERSION, Settings
from device_agent.testing.network.tasks import Candidate, Task, TaskTable, candidates, choose

_MARGIN_S = 600.0


class Backend:
    """The state of the network, and its part in tasks: routes them to instances and sees them end."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.records = Records(settings)
        self.tokens = Tokens()
        self.wire = Wire(settings, self.records, self.saw_event)
        self.registry = Registry(settings)
        self.tasks = TaskTable(settings.max_tasks)
        self.accounts = Accounts(settings)
        self.files = FileStore(settings.max_file_bytes)
        self._timers: set[asyncio.TimerHandle] = set()
        self._watched: set[str] = set()
        self._unwatched: dict[str, Task] = {}

    def close(self) -> None:
        """Forget everything that was planned."""
        for timer in self._timers:
            timer.cancel()
        for task in self.tasks.all():
            task.stop_timers()

    # -- routing ------------------------------------------------------------------------------------------

    def candidates(self, agent: RegisteredAgent) -> list[Candidate]:
        """The agent's live instances with their load."""
        occupants = self.wire.presence[agent.environment].live(agent.control_channel)
        return candidates(agent, occupants, self.tasks.open_of(agent))

    def waiting(self, agent: RegisteredAgent) -> list[Task]:
        """The tasks of an agent that were not sent to an instance yet, oldest first."""
        return [t for t in self.tasks.open_of(agent) if t.queued]

    def backlog_limit(self, agent: RegisteredAgent) -> int:
        """How many tasks may wait: as stated by the instance, else by the card, else the default."""
        stated = (agent.card or {}).get("runtime", {}).get("maxPendingBacklog")
        if agent.max_backlog is not None:
            return agent.max_backlog
        return stated if isinstance(stated, int) else self.settings.default_backlog

    def dispatch(self, agent: RegisteredAgent) -> None:
        """Send waiting tasks to instances with room."""
        waiting = self.waiting(agent)
        if not waiting or agent.forced_offline:
            return
        for task in waiting:
            target = choose(self.candidates(agent))
            if target is None:
                return
            self._assign(task, None if agent.expected_instances == 0 else target.instance_id)

    def _assign(self, task: Task, instance_id: str | None) -> None:
        task.queued = False
        task.instance_id = instance_id
        delay_s = self.settings.dispatch_delay_s
        if self.settings.dispatch_when_watched_s and task.channel not in self._watched:
            delay_s = self.settings.dispatch_when_watched_s
            self._unwatched[task.channel] = task
        if delay_s:
            self._later(task, delay_s, lambda: self._start_delayed(task))
        else:
            self.start(task)

    def saw_presence(self, channels: list[str]) -> None:
        """A client has joined or changed its state: tasks that waited for that may start."""
        self.wire.records.notify()
        for channel in channels:
            agent = self.registry.by_control.get(channel)
            if agent is not None:
                self.dispatch(agent)
            elif self.settings.dispatch_when_watched_s and channel.startswith("u."):
                self._saw_caller(channel)

    def _saw_caller(self, channel: str) -> None:
        task = self.tasks.by_channel(channel)
        if task is None or task.ended:
            return
        self._watched.add(channel)
        if channel in self._unwatched:
            self._start_delayed(task)

    def _start_delayed(self, task: Task) -> None:
        self._unwatched.pop(task.channel, None)
        if task.dispatches == 0:
            self.start(task)

    def start(self, task: Task) -> None:
        """Send StartTask; its deadline runs from the first time on."""
        if task.ended:
            return
        if task.dispatches == 0:
            seconds = self.running_time_s(task)
            if task.kind == "pipe":
                task.expires_at_ms = now_ms() + round(1000 * seconds)
            self._later(task, seconds, lambda: self.expire(task))
        task.dispatches += 1
        self.control(task.agent, self.start_message(task), instance_id=task.instance_id)

    def running_time_s(self, task: Task) -> float:
        """How long the task may run, in seconds."""
        if task.duration_minutes is not None:
            return task.duration_minutes * self.settings.minute_s
        stated = (task.agent.card or {}).get("runtime", {}).get("maxRunningTimeSec")
        seconds = task.agent.max_running_time_s or stated
        return float(seconds) if isinstance(seconds, int) else self.settings.default_running_time_s

    # -- control messages ---------------------------------------------------------------------------------

    def start_message(self, task: Task) -> dict[str, Any]:
        """StartTask with fresh tokens."""
        message: dict[str, Any] = {
            "type": "StartTask",
            "taskId": task.task_id,
            "agentName": task.agent.name,
            "ownerId": task.owner_id,
            "orgId": task.org_id,
            "requestParts": task.parts,
            "callerClaims": task.claims,
            "requestSummary": {"parts": len(task.parts)},
            "taskKind": task.kind,
            "hasStream": task.has_stream,
            "protocolVersion": PROTOCOL_VERSION,
            "writeToken": self.write_token(task),
            "controlToken": self.control_token(task.agent, task.instance_id or ""),
        }
        if task.duration_minutes is not None:
            message["duration"] = task.duration_minutes
            message["durationExpiresAtMs"] = task.expires_at_ms
        if task.consumer_public_key is not None:
            message["consumerPublicKey"] = task.consumer_public_key
        return message

    def control_token(self, agent: RegisteredAgent, instance_id: str, environment: str | None = None) -> str:
        """A control token."""
        channel = agent.control_channel
        return self.tokens.issue(
            "control",
            environment or agent.environment,
            {channel: READ | WRITE, f"{channel}-pnpres": READ},
            self.settings.lifetimes.control,
            patterns={r"^u\.": WRITE} if self.settings.control_may_publish else {},
            subject=instance_id,
        ).token

    def write_token(self, task: Task) -> str:
        """A write token, T2."""
        ttl_s = self.settings.lifetimes.write
        return self.tokens.issue(
            "write",
            task.environment,
            {task.channel: READ | WRITE, f"setup.{task.org_id}.{task.task_id}": WRITE},
            self.running_time_s(task) + _MARGIN_S if ttl_s is None else ttl_s,
            subject=task.task_id,
        ).token

    def read_token(self, task: Task) -> str:
        """A read token, T4."""
        lifetime_s = self.settings.lifetimes.read
        return self.tokens.issue(
            "read", task.environment, {task.channel: READ}, lifetime_s, subject=task.task_id
        ).token

    def control(self, agent: RegisteredAgent, message: dict[str, Any], *, instance_id: str | None) -> int:
        """Publish on the control channel, to one instance or to all; the timetoken."""
        meta = {"broadcast": "true"} if instance_id is None else {"instance": instance_id}
        return self.wire.send(agent.environment, agent.control_channel, message, meta)

    def command(self, task: Task, kind: str, caller: str, reason: str = "") -> None:
        """CancelTask, TerminateTask, PauseTask, ResumeTask, RetryTask or ExpireTask."""
        message: dict[str, Any] = {
            "type": kind,
            "taskId": task.task_id,
            "protocolVersion": PROTOCOL_VERSION,
        }
        if kind == "ExpireTask":
            message["agentName"] = task.agent.name
        else:
            message["caller"] = caller
        if reason:
            message["reason"] = reason
        self.control(task.agent, message, instance_id=task.instance_id)

    # -- ending -------------------------------------------------------------------------------------------

    def cancel(self, task: Task, caller: str) -> None:
        """Ask the provider to stop; the caller gets ``cancel_requested`` at once."""
        event = {"type": "cancel_requested", "taskId": task.task_id, "ts": now_ms()}
        self.wire.send_event(task.environment, task.channel, task.agent.name, event)
        self._end(task, "CancelTask", caller, "cancelled by caller")

    def terminate(self, task: Task, caller: str) -> None:
        """End a task hard."""
        self._end(task, "TerminateTask", caller, "")

    def expire(self, task: Task) -> None:
        """The task's time is over."""
        self._end(task, "ExpireTask", "", "duration_expired" if task.kind == "pipe" else "max_running_time")

    def _end(self, task: Task, kind: str, caller: str, reason: str) -> None:
        if task.ended:
            return
        task.ending = kind
        if task.queued:
            self.finish(task)
            return
        self.command(task, kind, caller, reason)
        self._later(task, self.settings.safety_grace_s, lambda: self.finish(task))

    def finish(self, task: Task) -> None:
        """The safety net: the backend's own terminal, when the provider sends none."""
        if task.ended:
            return
        if task.ending == "ExpireTask" and task.kind == "pipe":
            self.publish_terminal(task, "completed", completionReason="duration_expired")
        elif task.ending == "ExpireTask":
            self.publish_terminal(task, "failed", error="The task ran longer than allowed.", reason="timeout")
        elif task.ending == "TerminateTask":
            self.publish_terminal(task, "canceled", reason="terminated")
        else:
            self.publish_terminal(task, "canceled")

    def publish_terminal(self, task: Task, state: str, **members: str) -> None:
        """A terminal event of the backend."""
        event = {"type": "terminal", "taskId": task.task_id, "state": state, **members}
        self.wire.send_event(task.environment, task.channel, task.agent.name, event)

    # -- what the channels say ----------------------------------------------------------------------------

    def saw_event(self, channel: str, event: dict[str, Any], uuid: str) -> None:
        """Follow a task through the events on its channel."""
        task = self.tasks.by_channel(channel)
        if task is None or not task.saw(event, uuid):
            return
        if task.ended:
            self.tasks.close(task)
            self._unwatched.pop(channel, None)
            self._watched.discard(channel)
            self._timed(self.settings.stream_revoke_delay_s, lambda: self._revoke_streams(task))
        self.dispatch(task.agent)

    def _revoke_streams(self, task: Task) -> None:
        if sum(self.tokens.revoke(token) for token in task.stream_tokens):
            self.wire.recheck()

    def _later(self, task: Task, seconds: float, then: Any) -> None:
        task.timers.append(asyncio.get_running_loop().call_later(seconds, then))

    def _timed(self, seconds: float, then: Any) -> None:
        def run() -> None:
            self._timers.discard(handle)
            then()

        handle = asyncio.get_running_loop().call_later(seconds, run)
        self._timers.add(handle)
