"""The Blocks Network as the runtime sees it: takes tasks from the control channel, and makes the way back."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import structlog

from device_agent.background import BackgroundTasks
from device_agent.clock import Clock
from device_agent.errors import NetworkError, ProtocolFault
from device_agent.network import Caller, Runtime, StartTask
from device_agent.network.blocks.clients import Clients, TaskClients
from device_agent.network.blocks.control import ControlChannel
from device_agent.network.blocks.files import Uploads
from device_agent.network.blocks.http import Http
from device_agent.network.blocks.identity import IdentityFile
from device_agent.network.blocks.joiner import Joiner, JoinSettings
from device_agent.network.blocks.long_poll import Delivery
from device_agent.network.blocks.membership import Membership
from device_agent.network.blocks.probe import probe
from device_agent.network.blocks.shared_streams import SharedStreams
from device_agent.network.blocks.task import BlocksTask, TaskServices
from device_agent.network.blocks.task_events import TaskEvents
from device_agent.network.blocks.token_renewal import TokenRenewal
from device_agent.network.blocks.wire import (
    PROTOCOL_VERSION,
    Begin,
    StartRefused,
    SwitchEnvironment,
    TaskControl,
    parse_control,
)
from device_agent.network.connectivity import Connectivity

log = structlog.get_logger("network")

# Refused tasks whose callers are answered at one time; beyond, the network's own time limit answers.
REFUSALS_MAX = 32
# When the network is asked whether tasks ended while the control channel was lost: one wait after the other.
MISSED_ENDS_AFTER_S = (0.0, 10.0, 60.0, 600.0)
LEAVE_LIMIT_S = 2.0
ENDS: dict[str, Literal["cancel", "expire", "terminate"]] = {
    "CancelTask": "cancel",
    "ExpireTask": "expire",
    "TerminateTask": "terminate",
}
STATUSES = {"PauseTask": "paused", "ResumeTask": "resumed"}


class BlocksNetwork:
    """`run` joins and stays joined until cancelled. Nothing that happens on the network ends it."""

    def __init__(
        self,
        settings: JoinSettings,
        runtime: Runtime,
        clock: Clock,
        state_dir: Path,
        *,
        on_card: Callable[[dict[str, Any]], None] = lambda card: None,
    ) -> None:
        """`on_card` is called with the published card at each join."""
        self.settings = settings
        self.clock = clock
        self.connectivity = Connectivity(clock)
        self.file = IdentityFile(state_dir / "identity.json", settings.agent_name)
        self.http = Http(self.connectivity, settings.proxy, settings.pubnub_origin)
        self.joiner = Joiner(settings, self.http, self.file, on_card)
        self.background = BackgroundTasks("network")
        self._clients = Clients(settings, self.http, self.file, clock)
        self._renewal = TokenRenewal(clock, self._clients.control_token_life_s)
        self.membership = Membership(self.joiner, self.connectivity, self._renewal, self._on_joined)
        self._control = ControlChannel(self.file, self._clients, self.connectivity, self)
        self._services = TaskServices(
            settings=settings,
            clients=self._clients,
            http=self.http,
            uploads=Uploads(self.http, self.joiner),
            shared_streams=SharedStreams(),
            background=self.background,
            clock=clock,
            instance_id=self.file.identity.instance_id,
            presence_changed=self._control.state_changed,
        )
        self._runtime = runtime
        self._tasks: dict[str, BlocksTask] = {}
        self._started_ms = clock.now_ms()
        self._missed_ends: asyncio.Task[Any] | None = None
        self._refusing = 0
        self._resumed = False

    async def run(self) -> None:
        """Membership, until cancelled; then the presence is taken back."""
        identity = self.file.identity
        if identity.control_token and identity.subscribe_key:
            # A start without network: the last token may still serve; a refusal leads to a new one.
            self._use_control_token(identity.control_token)
            self._resume_tasks()
        self.background.run_forever("receive", self._control.receive)
        self.background.run_forever("place", self._control.keep_place)
        self.background.run_forever("heartbeat", self._control.send_heartbeats)
        self.background.run_forever("presence", self._control.publish_state)
        self.background.run_forever("probe", lambda: probe(self.connectivity, self._clients))
        try:
            # A background task like the others: if it fails, receivers and writers go on.
            await self.background.run_forever("membership", self.membership.run)
        finally:
            await self._leave()

    async def stay_away(self) -> None:
        """Ask nothing of the network, until cancelled."""
        self.membership.stay_away()
        try:
            await asyncio.Event().wait()
        finally:
            await self._leave()

    @property
    def trouble(self) -> str:
        """What is wrong with membership, link or instance, as a sentence; "" if nothing is."""
        return self.membership.reason or self.connectivity.trouble or self._control.twin

    @property
    def blind(self) -> str:
        """What cannot be noticed now, as a sentence; "" if nothing is."""
        return self._control.blind

    async def _leave(self) -> None:
        self.membership.leave()
        await self.background.close()
        if self._clients.ready and self.connectivity.up:
            try:
                await self._clients.control.leave(self.file.identity.control_channel, LEAVE_LIMIT_S)
            except NetworkError as error:
                log.debug("leave_failed", error=str(error))
        self.file.save()
        await self.http.close()

    def _on_joined(self) -> None:
        self._use_control_token(self.file.identity.control_token)
        self._resume_tasks()

    def _use_control_token(self, token: str) -> None:
        self._clients.use_control_token(token)
        self._control.client_changed()

    def _resume_tasks(self) -> None:
        """Once in this process: tasks of an earlier one go on."""
        if self._resumed:
            return
        self._resumed = True
        for start in self._runtime.resumable():
            log.info("task_resumed", task=start.task_id)
            self._runtime.resume(self._task(start))

    # -- what the control channel calls ---------------------------------------------------------------------

    def presence(self) -> Mapping[str, Any]:
        """The presence state (docs/protocol.md)."""
        tasks, streams = self._runtime.load_now()
        return {
            "instanceId": self.file.identity.instance_id,
            "activeTasks": tasks,
            "concurrency": self.settings.concurrency(),
            "startedAt": self._started_ms,
            "activeStreams": streams,
            "preferredProtocolVersion": PROTOCOL_VERSION,
            "protocolVersions": [PROTOCOL_VERSION],
        }

    async def remembered(self) -> None:
        await self._runtime.remembered()

    def on_token_refused(self, why: str) -> None:
        self._renewal.request(why)

    def on_listening(self) -> None:
        """Control messages may have been missed, for the network caches few of them."""
        if self._missed_ends is not None:
            self._missed_ends.cancel()
        self._missed_ends = self.background.spawn("missed", self._look_for_missed_ends(list(self._tasks)))

    def on_control_message(self, delivery: Delivery) -> None:
        try:
            control = parse_control(delivery.payload)
            targeted = delivery.meta.get("instance") == self.file.identity.instance_id
            match control:
                case Begin():
                    start = replace(control.start, sent_ms=delivery.sent_ms)
                    self._on_start(start, control.control_token, targeted)
                case StartRefused():
                    self._refuse(
                        StartTask(control.task_id, "request", Caller(), control.org), control, targeted
                    )
                case TaskControl():
                    self._on_task_control(control)
                case SwitchEnvironment():
                    self._clients.switch(control.environment, control.token)
                    self._control.client_changed()
                case None:
                    log.debug("control_message_unknown")
        except ProtocolFault as fault:
            log.warning("control_message_ignored", error=str(fault))

    # -- control messages -----------------------------------------------------------------------------------

    def _on_start(self, start: StartTask, control_token: str, targeted: bool) -> None:
        # A message that was delivered late may bring a token older than the one in use.
        if control_token and self._clients.outlives_control_token(control_token):
            self._use_control_token(control_token)
        if self._runtime.knows(start.task_id):
            log.info("task_known_already", task=start.task_id)
            return
        if not self._runtime.has_room(start):
            self._refuse(start, StartRefused(start.task_id, start.org, "agent_at_capacity"), targeted)
            return
        task = self._task(start)
        task.events.running()
        self._runtime.begin(task)
        self._control.state_changed()

    def _on_task_control(self, control: TaskControl) -> None:
        if control.type in ENDS:
            self._runtime.end(control.task_id, ENDS[control.type])
            return
        task, status = self._tasks.get(control.task_id), STATUSES.get(control.type)
        if task is not None and status is not None and self._runtime.is_running(control.task_id):
            task.events.system(status)

    def _refuse(self, start: StartTask, refusal: StartRefused, targeted: bool) -> None:
        """Answer with a terminal, over the control token; a broadcast is left to other instances."""
        log.info("task_refused", task=refusal.task_id, error=refusal.error, targeted=targeted)
        if not targeted or self._refusing >= REFUSALS_MAX:
            return
        self._refusing += 1
        control = self._clients.control
        events = TaskEvents(
            self.settings.agent_name, start, TaskClients(control, control), self.connectivity, self.clock
        )
        events.terminal("failed", error=refusal.error, version=refusal.version)

        async def publish() -> None:
            try:
                await events.run()
            finally:
                self._refusing -= 1

        self.background.spawn(f"refusal {start.task_id}", publish())

    # -- tasks ----------------------------------------------------------------------------------------------

    def _task(self, start: StartTask) -> BlocksTask:
        task = BlocksTask(start, self._services)
        self._tasks[start.task_id] = task
        self.background.spawn(f"events {start.task_id}", self._run_events(task))
        return task

    async def _run_events(self, task: BlocksTask) -> None:
        try:
            await task.events.run()
        finally:
            self._tasks.pop(task.start.task_id, None)
            self._control.state_changed()

    async def _look_for_missed_ends(self, task_ids: list[str]) -> None:
        """End the tasks that the network has ended without us.

        It waits a while for our end of a task before it makes one itself, so it is asked more than once.
        """
        await self.membership.until_joined()
        for delay_s in MISSED_ENDS_AFTER_S:
            await asyncio.sleep(delay_s)
            for task_id in task_ids:
                if task_id in self._tasks:
                    await self._end_if_ended(task_id)

    async def _end_if_ended(self, task_id: str) -> None:
        try:
            state = await self.joiner.has_ended(task_id)
        except NetworkError as error:
            log.info("task_not_looked_up", task=task_id, error=str(error))
            return
        if state and task_id in self._tasks:
            log.info("task_ended_meanwhile", task=task_id, state=state)
            self._runtime.end(task_id, "expire" if state == "completed" else "cancel")
