"""The tasks at work: what the network asks of the runtime, and the sessions and requests it leads to."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import structlog

from device_agent.background import BackgroundTasks
from device_agent.clock import Clock
from device_agent.commands.authorization import may
from device_agent.commands.executor import CommandExecutor
from device_agent.config import Config
from device_agent.devices.device import Device
from device_agent.devices.dispatcher import Dispatcher
from device_agent.history.history_service import HistoryService
from device_agent.network import StartTask, TaskLink
from device_agent.safety.safe_states import SafeStates
from device_agent.store.journal.journal import Journal
from device_agent.store.outbox.outbox import Outbox
from device_agent.tasks.pipe_session import PipeSession, SharedSessionStreams, stream_id
from device_agent.tasks.request_task import RequestTask
from device_agent.tasks.result_delivery import ResultDelivery, TaskResult

log = structlog.get_logger("tasks")


class TaskManager:
    """Implements `network.Runtime`."""

    def __init__(
        self,
        config: Config,
        devices: Mapping[str, Device],
        dispatcher: Dispatcher,
        executor: CommandExecutor,
        safe_states: SafeStates,
        outbox: Outbox,
        journal: Journal,
        clock: Clock,
        history_service: HistoryService,
    ) -> None:
        self.background = BackgroundTasks("tasks")
        self.sessions: dict[str, PipeSession] = {}
        self.requests: dict[str, tuple[RequestTask, asyncio.Task[Any]]] = {}
        self._config = config
        self._devices = devices
        self._dispatcher = dispatcher
        self._executor = executor
        self._safe_states = safe_states
        self._outbox = outbox
        self._journal = journal
        self._clock = clock
        self._history_service = history_service
        self._deliveries = ResultDelivery(config.state.directory / "requests", journal)
        self._shared = SharedSessionStreams()
        self._unfinished: dict[str, tuple[StartTask, dict[str, Any]]] = {}
        self._pausing = False

    async def load(self) -> None:
        """Find what the last process left unfinished."""
        self._unfinished = {start.task_id: (start, s) for start, s in await self._journal.unfinished_tasks()}
        ids = {
            stream_id(start, n + 1) for start in self.resumable() for n in range(len(self._config.streams))
        }
        self._deliveries.keep_only(self._unfinished)
        self._outbox.expect(shared=self._config.streams, dedicated=ids)

    # -- network.Runtime ----------------------------------------

    def knows(self, task_id: str) -> bool:
        return self._journal.knows_task(task_id)

    def has_room(self) -> bool:
        limit = self._config.agent.concurrency
        return not self._pausing and (not limit or len(self.sessions) + len(self.requests) < limit)

    def load_now(self) -> tuple[int, int]:
        return len(self.sessions) + len(self.requests), sum(s.streams for s in self.sessions.values())

    def begin(self, link: TaskLink) -> None:
        start = link.start
        self._journal.begin_task(start, self._clock.now_ms())
        if start.kind not in self._config.agent.task_kinds:
            link.terminal("failed", error=f"not_allowed: this agent serves no {start.kind} tasks")
            self._journal.end_task(start.task_id, self._clock.now_ms())
            return
        if start.kind == "pipe":
            self._begin_session(link, None)
        else:
            self._begin_request(link, None)

    async def remembered(self) -> None:
        await self._journal.flushed()

    def resumable(self) -> list[StartTask]:
        return [start for start, _ in self._unfinished.values()]

    def resume(self, link: TaskLink) -> None:
        _, session = self._unfinished.pop(link.start.task_id)
        if link.start.kind == "pipe":
            self._begin_session(link, session)
            return
        if "parcel" in session:
            self._begin_request(link, TaskResult.from_journal(session["parcel"]))
            return
        # Nobody knows how far it came; a command that had begun is answered as unknown.
        link.terminal("failed", error="internal: the agent was restarted while it worked on this request")
        self._journal.end_task(link.start.task_id, self._clock.now_ms())

    def end(self, task_id: str, how: Literal["cancel", "expire", "terminate"]) -> bool:
        if (session := self.sessions.get(task_id)) is not None:
            session.end(how)
            return True
        if (entry := self.requests.get(task_id)) is not None:
            request, task = entry
            # A driver that hangs holds its bus, never the task (W18). Not before the task's first step, for
            # what never began would never leave its place: both messages may come in one answer.
            asyncio.get_running_loop().call_soon(task.cancel)
            request.link.terminal("canceled", reason="terminated" if how == "terminate" else "")
            return True
        return False

    def is_running(self, task_id: str) -> bool:
        return task_id in self.sessions or task_id in self.requests

    # -- background ----------------------------------------

    def _begin_session(self, link: TaskLink, resumed: Mapping[str, Any] | None) -> None:
        session = PipeSession(
            link,
            self._config,
            self._devices,
            self._dispatcher,
            self._executor,
            self._safe_states,
            self._outbox,
            self._journal,
            self._shared,
            self._clock,
            resumed,
        )
        self.sessions[link.start.task_id] = session
        self.background.spawn(f"session {link.start.task_id}", self._session(session))

    async def _session(self, session: PipeSession) -> None:
        task_id = session.start.task_id
        try:
            await session.run()
        except asyncio.CancelledError:
            await session.pause()
            raise
        except Exception:
            # A bug of ours must not leave a caller without an end, or an actuator without its safe state.
            self._executor.session_ends(session.actor.holder)
            await self._safe_states.end_of_session(session.actor.holder, honour_hold=False)
            session.link.terminal("failed", error="internal: the session failed; see the agent's log")
            raise
        finally:
            self.sessions.pop(task_id, None)
        self._journal.end_task(task_id, self._clock.now_ms())

    def _begin_request(self, link: TaskLink, parcel: TaskResult | None) -> None:
        request = RequestTask(
            link,
            self._config,
            self._devices,
            self._executor,
            self._history_service,
            self._deliveries,
            self._outbox,
            self._clock,
        )
        task_id = link.start.task_id
        task = self.background.spawn(f"request {task_id}", self._request(request, parcel))
        self.requests[task_id] = (request, task)

    async def _request(self, request: RequestTask, parcel: TaskResult | None) -> None:
        """`parcel` is an answer that an earlier process did not deliver to its end."""
        task_id = request.link.start.task_id
        try:
            await (request.run() if parcel is None else request.deliver(parcel))
        except Exception:
            request.link.terminal("failed", error="internal: the request failed; see the agent's log")
            raise
        finally:
            self.requests.pop(task_id, None)
            if not self._pausing:
                self._journal.end_task(task_id, self._clock.now_ms())
                self._deliveries.forget(task_id)
                await request.close()

    # -- reload ----------------------------------------

    def take(self, config: Config, *, gone: Sequence[str], fresh: Sequence[str]) -> None:
        """A new configuration: for new tasks as a whole, for running sessions as far as devices go."""
        self._config = config
        for session in self.sessions.values():
            for name in gone:
                session.replace(name, self._devices[name] if name in fresh else None)

    async def judge_again(self) -> None:
        """The access rules may have changed: who lost a right loses what it had by it, at once."""
        access = self._config.access
        for session in list(self.sessions.values()):
            actor = session.actor
            lost = [
                n for n in self._safe_states.driven_by(actor.holder) if not may(access, "drive", actor, n)
            ]
            for name in lost:
                self._executor.leases.release(actor.holder, name)
            await asyncio.gather(
                *(self._safe_states.make_safe(n, "the right to drive has ended") for n in lost)
            )
            session.judge_again(access)

    # -- what the safety side asks ----------------------------------------

    def graces(self) -> dict[str, float]:
        """Actuators away from safe that sessions drove last, with the seconds each may be without link."""
        found: dict[str, float] = {}
        for session in self.sessions.values():
            driven, graces = self._safe_states.driven_by(session.actor.holder), session.grace()
            found |= {name: graces[name] for name in driven if name in graces}
        return found

    def silences(self) -> dict[str, float]:
        """Actuators away from safe whose caller has been silent too long, with the seconds it may be."""
        found: dict[str, float] = {}
        now_s = self._clock.monotonic_s()
        for session in self.sessions.values():
            if silent := session.silent(now_s):
                driven = self._safe_states.driven_by(session.actor.holder)
                found |= {name: silent[name] for name in driven if name in silent}
        return found

    async def pause(self) -> None:
        """The process ends: sessions stay for the next one."""
        self._pausing = True
        await self.background.close()
