"""The tasks of the agent: what the network asks of it (`network.Runtime`), and who carries it out."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from device_agent.background import BackgroundTasks
from device_agent.commands.authorization import may
from device_agent.network import Runtime, StartTask, TaskLink
from device_agent.safety.safe_states import LEAVE_LIMIT_S
from device_agent.tasks.pipe_session import PipeSession, SavedSession
from device_agent.tasks.request_task import RequestTask
from device_agent.tasks.result_delivery import ResultDelivery, TaskResult
from device_agent.tasks.room import declared, has_room
from device_agent.tasks.services import Services
from device_agent.tasks.session_stream import SharedSessionStreams
from device_agent.tasks.stream_scope import stream_id


class TaskManager(Runtime):
    """Begins, continues and ends sessions and requests; keeps the Journal informed of both."""

    def __init__(self, services: Services) -> None:
        self.sessions: dict[str, PipeSession] = {}
        self.requests: dict[str, tuple[RequestTask, asyncio.Task[Any]]] = {}
        self._services = services
        self._background = BackgroundTasks("tasks")
        self._delivery = ResultDelivery(services.config.state.directory / "requests", services.journal)
        self._shared = SharedSessionStreams()
        self._unfinished: dict[str, tuple[StartTask, Mapping[str, Any]]] = {}
        self._pausing = False

    def __repr__(self) -> str:
        state = "pausing" if self._pausing else "running"
        return f"<TaskManager {state}: {len(self.sessions)} sessions, {len(self.requests)} requests>"

    async def load(self) -> None:
        """Find what the last process left unfinished."""
        unfinished = await self._services.journal.unfinished_tasks()
        self._unfinished = {start.task_id: (start, saved) for start, saved in unfinished}
        streams = self._services.config.streams
        ids = {stream_id(start, n + 1) for start in self.resumable() for n in range(len(streams))}
        self._delivery.keep_only(self._unfinished)
        doors = ["local:mqtt"] if self._services.config.mqtt.host else []
        self._services.outbox.expect(shared=[*streams, *doors], dedicated=ids)

    async def pause(self) -> None:
        """The process ends: sessions stay for the next one."""
        self._pausing = True
        await self._background.close()

    # -- network.Runtime ----------------------------------------

    def knows(self, task_id: str) -> bool:
        return self._services.journal.knows_task(task_id)

    def has_room(self, start: StartTask) -> bool:
        config = self._services.config
        running = [
            *(session.actor for session in self.sessions.values()),
            *(request.actor for request, _ in self.requests.values()),
        ]
        return not self._pausing and has_room(config, self._names, start, running)

    @property
    def _names(self) -> list[str]:
        return [*self._services.devices, *self._services.executor.delegation_actions]

    def load_now(self) -> tuple[int, int]:
        streams = sum(len(session.dedicated) for session in self.sessions.values())
        return len(self.sessions) + len(self.requests), streams

    def places(self) -> int:
        """How many tasks at once the network is told of (`room.declared`)."""
        return declared(self._services.config, self._names)

    def begin(self, link: TaskLink) -> None:
        start = link.start
        self._services.journal.begin_task(start, self._services.clock.now_ms())
        if start.kind not in self._services.config.agent.task_kinds:
            link.terminal("failed", error=f"not_allowed: this agent serves no {start.kind} tasks")
            self._note_end(start.task_id)
        elif start.kind == "pipe":
            self._begin_session(link, None)
        else:
            self._begin_request(link, None)

    async def remembered(self) -> None:
        await self._services.journal.flushed()

    def resumable(self) -> list[StartTask]:
        return [start for start, _ in self._unfinished.values()]

    def resume(self, link: TaskLink) -> None:
        start, saved = self._unfinished.pop(link.start.task_id)
        if start.kind == "pipe":
            self._begin_session(link, SavedSession.from_journal(saved))
        elif (result := TaskResult.from_journal(saved)) is not None:
            self._begin_request(link, result)
        else:
            # Nobody knows how far it came; a command that had begun is answered as unknown.
            link.terminal("failed", error="internal: the agent was restarted while it worked on this request")
            self._note_end(start.task_id)

    def end(self, task_id: str, how: Literal["cancel", "expire", "terminate"]) -> bool:
        if (session := self.sessions.get(task_id)) is not None:
            session.end(how)
            return True
        if (entry := self.requests.get(task_id)) is not None:
            request, task = entry
            # A driver that hangs holds its bus, never the task. Not before the task's first step, for what
            # never began would never leave its place: both messages may come in one answer.
            asyncio.get_running_loop().call_soon(task.cancel)
            request.link.terminal("canceled", reason="terminated" if how == "terminate" else "")
            return True
        return False

    def is_running(self, task_id: str) -> bool:
        return task_id in self.sessions or task_id in self.requests

    # -- sessions and requests ----------------------------------------

    def _begin_session(self, link: TaskLink, saved: SavedSession | None) -> None:
        session = PipeSession(self._services, link, self._shared, saved)
        self.sessions[link.start.task_id] = session
        self._background.spawn(f"session {link.start.task_id}", self._run_session(session))

    async def _run_session(self, session: PipeSession) -> None:
        task_id = session.start.task_id
        try:
            await session.run()
        except asyncio.CancelledError:
            await session.pause()
            raise
        except Exception:
            # A bug of ours must not leave a caller without an end, or an actuator without its safe state.
            self._services.executor.session_ends(session.actor.holder)
            await self._services.safe_states.end_of_session(session.actor.holder, honour_hold=False)
            session.link.terminal("failed", error="internal: the session failed; see the agent's log")
            raise
        finally:
            self.sessions.pop(task_id, None)
        self._note_end(task_id)

    def _begin_request(self, link: TaskLink, result: TaskResult | None) -> None:
        """`result` is one that an earlier process did not deliver to its end."""
        request = RequestTask(self._services, link, self._delivery)
        task_id = link.start.task_id
        task = self._background.spawn(f"request {task_id}", self._run_request(request, result))
        self.requests[task_id] = (request, task)

    async def _run_request(self, request: RequestTask, result: TaskResult | None) -> None:
        task_id = request.link.start.task_id
        try:
            await (request.run() if result is None else request.deliver(result))
        except Exception:
            request.link.terminal("failed", error="internal: the request failed; see the agent's log")
            raise
        finally:
            self.requests.pop(task_id, None)
            if not self._pausing:
                self._note_end(task_id)
                self._delivery.forget(task_id)
                await request.close()

    def _note_end(self, task_id: str) -> None:
        self._services.journal.end_task(task_id, self._services.clock.now_ms())

    # -- reload ----------------------------------------

    def replace_devices(self, *, gone: Sequence[str], fresh: Sequence[str]) -> None:
        """A reload changed devices; those of `gone` that are `fresh` have another one in their place."""
        for session in self.sessions.values():
            for name in gone:
                session.replace(name, self._services.devices[name] if name in fresh else None)

    async def judge_again(self) -> None:
        """The access rules may have changed: a caller who lost a right loses what he had by it, at once."""
        access, executor = self._services.config.access, self._services.executor
        safe_states = self._services.safe_states
        for session in list(self.sessions.values()):
            actor = session.actor
            lost = [n for n in safe_states.driven_by(actor.holder) if not may(access, "drive", actor, n)]
            for name in lost:
                executor.leases.release(actor.holder, name)
            await safe_states.all_safe("the right to drive has ended", LEAVE_LIMIT_S, lost)
            session.judge_again(access)

    # -- what the safety side asks ----------------------------------------

    def overdue(self) -> dict[str, str]:
        """Actuators away from safe whose session has lost its link or its caller, with the reason."""
        reasons: dict[str, str] = {}
        for session in self.sessions.values():
            if driven := self._services.safe_states.driven_by(session.actor.holder):
                reasons |= session.overdue(driven)
        return reasons
