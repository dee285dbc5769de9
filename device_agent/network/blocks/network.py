"""The agent's membership: joined, or trying. Tasks come in here and go back through `BlocksTask`."""

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from device_agent.background import BackgroundTasks
from device_agent.clock import Clock
from device_agent.errors import NetworkError, ProtocolFault, Revoked
from device_agent.network import Caller, Runtime, StartTask
from device_agent.network.blocks.control import ControlChannel
from device_agent.network.blocks.files import Uploads
from device_agent.network.blocks.http import Http
from device_agent.network.blocks.identity import IdentityFile
from device_agent.network.blocks.joiner import Joiner, JoinSettings
from device_agent.network.blocks.pubsub import Delivery, KeySet, PubSubClient
from device_agent.network.blocks.task import BlocksTask, SharedStreams
from device_agent.network.blocks.task_events import TaskEvents
from device_agent.network.blocks.wire import (
    PROTOCOL_VERSION,
    Begin,
    StartRefused,
    SwitchEnvironment,
    TaskControl,
    parse_control,
)
from device_agent.network.connectivity import Connectivity, NetworkBackoff

log = structlog.get_logger("network")

# A token is replaced when this much of its life is over, and never later than a minute before its end.
RENEW_AT = 0.75
RENEW_MARGIN_S = 60.0
# A token that does not tell its life is replaced this often, so that an idle agent outlives it (W6).
RENEW_UNKNOWN_S = 1800.0
# A revoked key or a forced-offline is asked again this seldom: no login loop, and no visit when it is lifted.
REVOKED_RETRY_S = 600.0
# Renewals asked for by several refused requests at once are one renewal.
RENEW_MIN_INTERVAL_S = 2.0
# Refusals that are being told to callers; beyond, the service's own safety net answers.
REFUSALS_MAX = 32
# When the network is asked for ends that were missed, after it is heard again: one wait after the other.
LOOK_AFTER_S = (0.0, 10.0, 60.0, 600.0)
LEAVE_LIMIT_S = 2.0
PROBE_IDLE_S = 0.5
PROBE_DOWN_S = 3.0
_NOBODY = Caller()


class BlocksNetwork:
    """`run` joins and stays joined until cancelled. Nothing that happens on the network ends it."""

    def __init__(self, settings: JoinSettings, runtime: Runtime, clock: Clock, state_dir: Path) -> None:
        self.settings = settings
        self.clock = clock
        self.connectivity = Connectivity(clock)
        self.file = IdentityFile(state_dir / "identity.json", settings.agent_name)
        self.http = Http(self.connectivity)
        self.joiner = Joiner(settings, self.http, self.file)
        self.uploads = Uploads(self.http, self.joiner)
        self.background = BackgroundTasks("network")
        self.shared = SharedStreams()
        self.joined = asyncio.Event()
        self.trouble = "not joined yet"
        self.faults = 0
        self.need_proof_s: Callable[[], float | None] = lambda: None
        """How often the link must prove itself now (actuators depend on it); None when nothing does."""
        self._runtime = runtime
        self._control_client: PubSubClient | None = None
        self._tasks: dict[str, BlocksTask] = {}
        self._started_ms = clock.now_ms()
        self._renew_now = asyncio.Event()
        self._again = asyncio.Event()
        self._looking: asyncio.Task[Any] | None = None
        self._joined_at_s = 0.0
        self._refusing = 0
        self._resumed = False
        self.control = ControlChannel(
            self.file,
            self.connectivity,
            state=self.presence,
            handle=self._on_delivery,
            renew=self._ask_renewal,
            remembered=runtime.remembered,
            opened=self._opened,
        )

    # -- life -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Membership, until cancelled; then the presence is taken back politely."""
        identity = self.file.identity
        if identity.control_token and identity.subscribe_key:
            # Offline boot: the token of the last life may still serve; a refusal leads to a new one.
            self._use_control_token(identity.control_token)
            self._resume_tasks()
        self.background.run_forever("receive", self.control.receive)
        self.background.run_forever("beat", self.control.beat)
        self.background.run_forever("tell", self.control.tell)
        self.background.run_forever("probe", self._probe)
        try:
            # A life of its own: what fails in it must not take receivers and writers along.
            await self.background.run_forever("membership", self._membership)
        finally:
            await self._leave()

    async def _membership(self) -> None:
        backoff = NetworkBackoff(self.connectivity)
        while True:
            self._renew_now.clear()
            try:
                await self.joiner.join()
            except Revoked as error:
                self.trouble = str(error)
                self.joined.clear()
                log.error("not_allowed", error=str(error), again_in_s=REVOKED_RETRY_S)
                self._again.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._again.wait(), REVOKED_RETRY_S)
                continue
            except NetworkError as error:
                if self.trouble != str(error):
                    self.trouble = str(error)
                    log.warning("not_joined", error=str(error))
                await backoff.wait(error)
                continue
            backoff.reset()
            self._on_joined()
            await self._until_renewal()

    def _on_joined(self) -> None:
        identity = self.file.identity
        first = not self.joined.is_set()
        self._joined_at_s = self.clock.monotonic_s()
        self._use_control_token(identity.control_token)
        self.trouble = ""
        self.joined.set()
        if first:
            log.info("joined", agent=identity.agent_name, instance=identity.instance_id)
            self._resume_tasks()
        else:
            log.info("token_renewed")

    def try_again(self) -> None:
        """The owner says that what kept the agent out is mended: ask now."""
        self._again.set()

    async def _until_renewal(self) -> None:
        try:
            async with asyncio.timeout(self._token_life_s()):
                await self._renew_now.wait()
        except TimeoutError:
            return
        early_s = self._joined_at_s + RENEW_MIN_INTERVAL_S - self.clock.monotonic_s()
        if early_s > 0:
            await asyncio.sleep(early_s)

    def _token_life_s(self) -> float:
        assert self._control_client is not None
        expires_ms = self._control_client.token_expires_ms(self.file.identity.control_token)
        server_ms = self.connectivity.server_ms() or (self.clock.now_ms() if self.clock.is_set() else None)
        if expires_ms is None or server_ms is None:
            return RENEW_UNKNOWN_S
        life_s = (expires_ms - server_ms) / 1000
        return max(RENEW_MIN_INTERVAL_S, min(life_s * RENEW_AT, life_s - RENEW_MARGIN_S))

    async def _probe(self) -> None:
        """Ask for the time until it is known, and again before our own clock has drifted; when nothing else
        has proved the link for too long; and while it is down: whoever hangs in a request of before is told
        when it is back."""
        while True:
            need_s = self.need_proof_s()
            timeless = not self.connectivity.time_is_fresh
            if self._control_client is None or (need_s is None and self.connectivity.up and not timeless):
                await asyncio.sleep(PROBE_IDLE_S)
                continue
            every_s = PROBE_DOWN_S if need_s is None else need_s / 3
            if timeless or not self.connectivity.up or self.connectivity.silent_s() > every_s:
                try:
                    await self._control_client.ping(max(0.2, every_s))
                except NetworkError as error:
                    log.debug("probe_failed", error=str(error))
            await asyncio.sleep(random.uniform(0.5, 1.0) * max(0.1, every_s / 2))

    async def _ask_renewal(self, why: str) -> None:
        if not self._renew_now.is_set():
            log.info("token_refused", why=why)
            self._renew_now.set()

    async def _leave(self) -> None:
        await self.background.close()
        if self._control_client is not None and self.connectivity.up:
            try:
                await self._control_client.leave(self.file.identity.control_channel, LEAVE_LIMIT_S)
            except NetworkError as error:
                log.debug("leave_failed", error=str(error))
        self.file.save()
        await self.http.close()

    # -- clients --------------------------------------------------------------------------------------------

    def client(self, uuid: str, token: str) -> PubSubClient:
        """A client of the current key set."""
        identity, settings = self.file.identity, self.settings
        return PubSubClient(
            self.http,
            KeySet(identity.publish_key, identity.subscribe_key),
            uuid=uuid,
            token=token,
            origin=settings.pubnub_origin,
            tls=settings.pubnub_tls,
        )

    @property
    def control_client(self) -> PubSubClient:
        assert self._control_client is not None
        return self._control_client

    def _use_control_token(self, token: str) -> None:
        self.file.identity.control_token = token
        if self._control_client is None:
            self._control_client = self.client(self.file.identity.instance_id, token)
            self.control.use(self._control_client)
        else:
            self._control_client.token = token
            self.control.token_renewed()

    def _outlives(self, token: str) -> bool:
        """Whether a token that came with a task is newer than ours: the task may have waited for long."""
        theirs, ours = (
            self.control_client.token_expires_ms(each) for each in (token, self.file.identity.control_token)
        )
        return theirs is None or ours is None or theirs > ours

    def _switch(self, environment: str, token: str) -> None:
        identity = self.file.identity
        keys = identity.network_keys if environment == "network" else identity.playground_keys
        if not keys:
            raise ProtocolFault("SwitchEnvironment before the first join")
        identity.environment = environment
        identity.publish_key, identity.subscribe_key = keys
        identity.control_token = token
        self._control_client = self.client(identity.instance_id, token)
        self.control.use(self._control_client)
        self.file.save()
        log.info("environment_switched", environment=environment)

    # -- presence -------------------------------------------------------------------------------------------

    def presence(self) -> Mapping[str, Any]:
        """The state of protocol section 9."""
        tasks, streams = self._runtime.load_now()
        return {
            "instanceId": self.file.identity.instance_id,
            "activeTasks": tasks,
            "concurrency": self.settings.concurrency,
            "startedAt": self._started_ms,
            "activeStreams": streams,
            "preferredProtocolVersion": PROTOCOL_VERSION,
            "protocolVersions": [PROTOCOL_VERSION],
        }

    # -- control messages -----------------------------------------------------------------------------------

    def _on_delivery(self, delivery: Delivery) -> None:
        try:
            control = parse_control(delivery.payload)
            targeted = delivery.meta.get("instance") == self.file.identity.instance_id
            match control:
                case Begin():
                    start = replace(control.start, sent_ms=delivery.sent_ms)
                    self._on_start(replace(control, start=start), targeted)
                case StartRefused():
                    start = StartTask(control.task_id, "request", _NOBODY, control.org)
                    self._refuse(start, control, targeted)
                case TaskControl():
                    self._on_task_control(control)
                case SwitchEnvironment():
                    self._switch(control.environment, control.token)
                case None:
                    log.debug("control_message_unknown")
        except ProtocolFault as fault:
            self.faults += 1
            log.warning("control_message_ignored", error=str(fault))

    def _on_start(self, begin: Begin, targeted: bool) -> None:
        start = begin.start
        if begin.control_token and self._outlives(begin.control_token):
            self._use_control_token(begin.control_token)
        if self._runtime.knows(start.task_id):
            log.info("task_known_already", task=start.task_id)
            return
        if not self._runtime.has_room():
            self._refuse(start, StartRefused(start.task_id, start.org, "agent_at_capacity"), targeted)
            return
        task = self._task(start)
        task.events.running()
        self._runtime.begin(task)
        self.control.state_changed()

    def _on_task_control(self, control: TaskControl) -> None:
        match control.type:
            case "CancelTask":
                self._runtime.end(control.task_id, "cancel")
            case "ExpireTask":
                self._runtime.end(control.task_id, "expire")
            case "TerminateTask":
                self._runtime.end(control.task_id, "terminate")
            case "PauseTask" | "ResumeTask":
                pausing = control.type == "PauseTask"
                if self._runtime.is_running(control.task_id) and control.task_id in self._tasks:
                    self._tasks[control.task_id].events.system("paused" if pausing else "resumed")

    def _refuse(self, start: StartTask, refusal: StartRefused, targeted: bool) -> None:
        """Targeted refusals are told, over the control token; a broadcast is left to others."""
        log.info("task_refused", task=refusal.task_id, error=refusal.error, targeted=targeted)
        if not targeted or self._refusing >= REFUSALS_MAX:
            return
        self._refusing += 1
        events = TaskEvents(
            self.settings.agent_name,
            start,
            self.control_client,
            self.control_client,
            self.connectivity,
            self.clock,
        )
        events.terminal("failed", refusal.error, "", "", version=refusal.version)

        async def tell() -> None:
            try:
                await events.run()
            finally:
                self._refusing -= 1

        self.background.spawn(f"refusal {start.task_id}", tell())

    # -- tasks ----------------------------------------------------------------------------------------------

    def _task(self, start: StartTask) -> BlocksTask:
        task = BlocksTask(self, start)
        self._tasks[start.task_id] = task
        self.background.spawn(f"events {start.task_id}", self._task_life(task))
        return task

    async def _task_life(self, task: BlocksTask) -> None:
        try:
            await task.events.run()
        finally:
            self._tasks.pop(task.start.task_id, None)
            self.control.state_changed()

    def _opened(self) -> None:
        """Control messages come again; what was said meanwhile may have passed by (the cache is short)."""
        if self._looking is not None:
            self._looking.cancel()
        self._looking = self.background.spawn("missed", self._look_for_missed(list(self._tasks)))

    async def _look_for_missed(self, task_ids: list[str]) -> None:
        """End what the network has ended without us. It waits a while for our end before it makes one, so it
        is asked more than once."""
        await self.joined.wait()
        for delay_s in LOOK_AFTER_S:
            await asyncio.sleep(delay_s)
            await self._honour_ends([task_id for task_id in task_ids if task_id in self._tasks])

    async def _honour_ends(self, task_ids: list[str]) -> None:
        for task_id in task_ids:
            try:
                state = await self.joiner.has_ended(task_id)
            except NetworkError as error:
                log.info("task_not_looked_up", task=task_id, error=str(error))
                continue
            if state and task_id in self._tasks:
                log.info("task_ended_meanwhile", task=task_id, state=state)
                self._runtime.end(task_id, "expire" if state == "completed" else "cancel")

    def _resume_tasks(self) -> None:
        if self._resumed:
            return
        self._resumed = True
        for start in self._runtime.resumable():
            log.info("task_resumed", task=start.task_id)
            self._runtime.resume(self._task(start))
