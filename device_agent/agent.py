"""The daemon: all parts wired together, and the order in which they start and stop."""

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import structlog

from device_agent import __version__
from device_agent.background import BackgroundTasks, first_of
from device_agent.card.compare import CardWatch
from device_agent.clock import Clock
from device_agent.commands.control_side import build_control
from device_agent.config import Config
from device_agent.config.mqtt import MqttConfig
from device_agent.config.page import PageConfig
from device_agent.config.secret import ApiKeys
from device_agent.devices.clock_chip import ClockChip
from device_agent.devices.hardware import HandleFactory, Hardware
from device_agent.devices.kept import KeptCounts
from device_agent.history.history_service import HistoryService
from device_agent.network.blocks.joiner import JoinSettings
from device_agent.network.blocks.network import BlocksNetwork
from device_agent.operate.control_handlers import ControlHandlers, DiskUse
from device_agent.operate.control_socket import ControlSocket, Handler
from device_agent.operate.reload import Reloader
from device_agent.operate.systemd import Notifier
from device_agent.store.history.history_recorder import HistoryRecorder
from device_agent.store.journal.journal import Journal, cut_off
from device_agent.store.outbox.outbox import Outbox
from device_agent.store.store_thread import StoreThread
from device_agent.tasks.manager import TaskManager
from device_agent.tasks.services import Services
from device_agent.tasks.stream_subscriptions import StreamSubscriptions

if TYPE_CHECKING:
    from device_agent.automation.automation import Automation
    from device_agent.delegation.delegation_rule import DelegationRule
    from device_agent.delegation.delegations import Delegations
    from device_agent.mqtt.door import MqttDoor
    from device_agent.page.server import Page
    from device_agent.tasks.local_events import LocalEvents

log = structlog.get_logger("agent")

# A device whose driver hangs as it is opened delays READY=1 by no more.
READY_LIMIT_S = 15.0
# How often link loss and stuck buses are looked at.
WATCH_S = 0.2
# The event loop's delays of the last minute.
LAG_SAMPLES = 300
# Stop order, each step with its own limit; the sum stays under the unit's TimeoutStopSec of 15 s.
SAFE_LIMIT_S = 1.0
PAUSE_LIMIT_S = 3.0
STORE_LIMIT_S = 3.0
DELEGATIONS_LIMIT_S = 1.0
MQTT_LIMIT_S = 1.0
LEAVE_LIMIT_S = 3.0
EXIT_DONE = 0
EXIT_RESTART = 75


class Agent:
    """One run of the daemon."""

    def __init__(
        self,
        config: Config,
        keys: ApiKeys,
        clock: Clock,
        make_handle: HandleFactory,
        notifier: Notifier,
        *,
        log_style: str = "text",
    ) -> None:
        self._config = config
        self._clock = clock
        self._notifier = notifier
        self._background = BackgroundTasks("agent")
        self._exit_code = EXIT_DONE
        self._stopping = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._lags_s: deque[float] = deque([0.0], maxlen=LAG_SAMPLES)
        self._open_stores(config)
        rules: dict[str, DelegationRule] = {}
        self._control = control = build_control(
            config, self._journal, clock, log_style=log_style, delegation_actions=rules
        )
        self._local_events = self._make_local_events(config.mqtt) if config.mqtt.host else None
        self._clock_chip = ClockChip(control.context)
        self._history_service = HistoryService(config.agent.title, self._history, control.devices, clock)
        self._streams = StreamSubscriptions(clock)
        self._tasks = TaskManager(self._services())
        self._network = self._make_network(config, keys.network)
        self._delegations = self._make_delegations(config, keys.sessions, rules)
        self._automation = self._make_automation(config)
        self._hardware = self._make_hardware(make_handle)
        state = config.state
        self._counts = KeptCounts(
            state.directory, state.runtime_directory, state.counts_every_s, self._hardware.kept, self._store
        )
        self._reloader = Reloader(control, self._hardware, self._tasks)
        handlers = self._handlers()
        self._socket = ControlSocket(config.state.runtime_directory / "control.sock", handlers)
        self._page = None if config.page.listen is None else self._make_page(config.page, handlers)
        self._mqtt = None
        if self._local_events is not None:
            self._mqtt = self._make_mqtt(config, handlers, self._local_events)

    def _services(self) -> Services:
        return Services(
            devices=self._control.devices,
            subscriptions=self._streams,
            executor=self._control.executor,
            safe_states=self._control.safe_states,
            outbox=self._outbox,
            journal=self._journal,
            history_service=self._history_service,
            clock=self._clock,
        )

    def _make_network(self, config: Config, api_key: Callable[[], str]) -> BlocksNetwork:
        executor = self._control.executor
        return BlocksNetwork(
            self._settings(api_key),
            self._tasks,
            self._clock,
            config.state.directory,
            on_card=CardWatch(lambda: executor.config).published,
        )

    def _make_hardware(self, make_handle: HandleFactory) -> Hardware:
        # In this order, after the emergency stop and the conditions: record, react, report.
        dispatcher = self._control.dispatcher(
            self._history,
            self._delegations,
            self._automation,
            self._streams,
            self._local_events,
            clock_chip=self._clock_chip,
        )
        return self._control.make_hardware(make_handle, dispatcher)

    def _make_delegations(
        self, config: Config, key: Callable[[], str], rules: "dict[str, DelegationRule]"
    ) -> "Delegations | None":
        if not config.delegations:
            return None
        # Loaded only if the configuration has some.
        from device_agent.delegation.delegations import Delegations
        from device_agent.delegation.exchange import RuleState
        from device_agent.delegation.prompt_builder import PromptBuilder
        from device_agent.delegation.rate_limit import RateLimit
        from device_agent.delegation.services import DelegationServices
        from device_agent.network.sessions_api import SessionsApi
        from device_agent.triggers.state_file import StateFile

        services = DelegationServices(
            SessionsApi(config.delegation.base_url, key, self._network.http.session),
            RateLimit(config.delegation.poll_s, self._clock),
            PromptBuilder(config.agent.title, self._control.devices, self._history_service, self._clock),
            StateFile(config.state.directory / "delegations.json", self._store, RuleState),
            self._control.executor,
            self._journal,
            self._clock,
        )
        return Delegations(config.delegations, services, self._streams, rules)

    def _make_automation(self, config: Config) -> "Automation | None":
        if not config.rules and not config.alerts:
            return None
        # Loaded only if the configuration has some.
        from device_agent.automation.automation import Automation
        from device_agent.automation.services import AutomationServices, AutomationState
        from device_agent.triggers.present import Present
        from device_agent.triggers.state_file import StateFile

        services = AutomationServices(
            title=config.agent.title,
            present=Present(self._control.devices),
            executor=self._control.executor,
            safe_states=self._control.safe_states,
            outbox_share=lambda: self._outbox.used_bytes / self._outbox.max_bytes,
            session=self._network.http.session,
            state_file=StateFile(config.state.directory / "automation.json", self._store, AutomationState),
            clock=self._clock,
        )
        return Automation(config.rules, config.alerts, services)

    def _open_stores(self, config: Config) -> None:
        self._store = StoreThread()
        # A command moves nothing before the Journal has it, and waits for no other file.
        self._journal_thread = StoreThread("journal")
        self._journal = Journal(
            config.state.directory / "journal.db",
            self._journal_thread,
            self._clock.now_ms,
            config.state.runtime_directory,
        )
        self._outbox = Outbox(
            config.state.directory,
            config.state.runtime_directory,
            max_bytes=config.outbox.max_bytes,
            commit_interval_s=config.outbox.commit_interval_s,
            thread=self._store,
            clock=self._clock,
        )
        self._history = _history(config, self._store, self._clock)

    def _make_page(self, config: PageConfig, handlers: Mapping[str, Handler]) -> "Page":
        # Loaded only if the configuration has a page.
        from device_agent.page.server import Page

        return Page(config, handlers)

    def _make_local_events(self, config: MqttConfig) -> "LocalEvents":
        # Loaded only if the configuration has a broker.
        from device_agent.tasks.local_events import LocalEvents

        return LocalEvents("local:mqtt", self._control, self._outbox, config.overflow)

    def _make_mqtt(
        self, config: Config, handlers: Mapping[str, Handler], local_events: "LocalEvents"
    ) -> "MqttDoor":
        from device_agent.mqtt.door import MqttDoor

        return MqttDoor(config.mqtt, config.agent.name, handlers, local_events)

    def _handlers(self) -> Mapping[str, Handler]:
        history, delegations, automation = self._history, self._delegations, self._automation
        handlers = ControlHandlers(
            self._control,
            self._tasks,
            self._network,
            self._history_service,
            figures={
                "configuration": self._reloader.figures,
                "broker": lambda: None if self._mqtt is None else self._mqtt.figures(),
                "outbox": self._outbox.figures,
                "disk": DiskUse(self._config.state.directory).figures,
                "journal": self._journal.figures,
                "history": (lambda: None) if history is None else history.figures,
                "guard": self._control.guard.status,
                "emergency_stop": self._control.emergency_stop.status,
                "buses": self._hardware.figures,
                "delegations": list if delegations is None else delegations.status,
                "ready": lambda: self._notifier.ready,
                "loop_lag_s": lambda: round(max(self._lags_s), 4),
                "rules": list if automation is None else automation.rules,
                "alerts": list if automation is None else automation.alerts,
            },
        )
        return handlers.handlers()

    def _settings(self, api_key: Callable[[], str]) -> JoinSettings:
        network, agent = self._config.network, self._config.agent
        return JoinSettings(
            agent_name=agent.name,
            api_key=api_key,
            concurrency=self._tasks.places,
            expected_instances=agent.instances,
            max_pending_backlog=agent.max_pending_backlog,
            max_running_s=agent.max_running_s if "request" in agent.task_kinds else None,
            cdm_url=network.cdm_url or os.environ.get("BLOCKS_CDM_URL", ""),
            api_base_url=network.api_base_url or "",
            pubnub_origin=network.pubnub_origin or "",
            pubnub_tls=network.pubnub_tls,
            publish_rate_hz=network.publish_rate_hz,
            proxy=network.proxy,
        )

    # -- start, run, stop ----------------------------------------

    def stop(self, exit_code: int = EXIT_DONE) -> None:
        """End in order; may be called from a signal handler of the loop."""
        if not self._stopping.is_set():
            self._exit_code = exit_code
            self._stopping.set()

    def reload(self) -> None:
        """Take up a changed configuration file; may be called from a signal handler of the loop."""
        self._background.spawn("reload", self._reload())

    async def _reload(self) -> None:
        self._network.membership.try_again()
        async with self._reloading:
            if await self._reloader.reload():
                await self._control.guard.follow()

    async def run(self) -> int:
        """Until `stop`; returns the exit code. Raises AgentError where another daemon has all this."""
        # Before the stores: its journal and its crash log are not ours to put in order.
        self._socket.check_alone()
        await self._journal.open()
        await self._control.recall()
        await self._settle_unfinished()
        await self._outbox.load()
        await self._tasks.load()
        if self._local_events is not None:
            await self._local_events.open()
        await self._control.guard.start()
        if self._delegations is not None:
            await self._delegations.start()
        if self._automation is not None:
            await self._automation.start()
        await self._counts.load()
        self._hardware.start()
        await self._socket.open()
        joins = self._config.network.kind != "none"
        network = self._background.run_forever(
            "network", self._network.run if joins else self._network.stay_away
        )
        self._background.run_forever("outbox", self._outbox.run)
        if self._history is not None:
            self._background.run_forever("history", self._history.run)
        self._background.run_forever("counts", self._counts.run)
        if self._page is not None:
            self._background.run_forever("page", self._page.run)
        mqtt = None if self._mqtt is None else self._background.run_forever("mqtt", self._mqtt.run)
        self._background.run_forever("watch", self._watch)
        if (watchdog_s := self._notifier.watchdog_s) is not None:
            self._background.run_forever("watchdog", lambda: self._feed(watchdog_s))
        self._background.run_forever("clock", self._clock_chip.run)
        self._background.spawn("ready", self._say_ready())
        try:
            await self._stopping.wait()
        finally:
            await self._stop_in_order(network, mqtt)
        return self._exit_code

    async def _settle_unfinished(self) -> None:
        """Commands that a crash cut off are `unknown`; opening the device puts it in its safe state."""
        for caller, id_, device in await self._journal.unfinished_commands():
            self._journal.finish_command(caller, cut_off(id_), self._clock.now_ms())
            self._control.safe_states.mark_unknown(device)
            self._journal.actuation(
                self._clock.now_ms(), "device-agent", device, "unfinished command", "unknown"
            )
            log.warning("command_unknown", device=device, id=id_)

    async def _say_ready(self) -> None:
        await first_of(self._hardware.until_tried(), limit_s=READY_LIMIT_S)
        self._notifier.tell("READY=1")
        joined = self._network.membership.joined
        log.info("ready", version=__version__, joined=joined, devices=len(self._control.devices))

    async def _watch(self) -> None:
        """Link loss while actuators run, and buses that hang for good. Waits for nobody."""
        safe_states = self._control.safe_states
        while True:
            before_s = time.monotonic()
            await asyncio.sleep(WATCH_S)
            self._lags_s.append(max(0.0, time.monotonic() - before_s - WATCH_S))
            self._notifier.status(self._summary())
            for name, why in self._tasks.overdue().items():
                safe_states.spawn_safe(name, why)
            for name, supervisor in self._hardware.supervisors.items():
                if supervisor.stuck_too_long():
                    log.critical("bus_stuck", bus=name, why="only a new process can use it again")
                    self.stop(EXIT_RESTART)

    def _summary(self) -> str:
        """What `systemctl status` shows."""
        membership, devices = self._network.membership, self._control.devices.values()
        link = "" if not membership.joined or self._network.connectivity.serves else ", link down"
        online = sum(device.online for device in devices)
        stop = "; emergency stop" if self._control.emergency_stop.status()["latched"] else ""
        refused = "; the last reload was refused" if self._reloader.figures()["refused"] else ""
        return f"{membership.state}{link}; {online} of {len(devices)} devices online{stop}{refused}"

    async def _feed(self, watchdog_s: float) -> None:
        """The watchdog's proof of progress."""
        while True:
            # Only while the stores still answer: an agent that cannot store anything does not work.
            for thread in (self._journal_thread, self._store):
                await thread.run(lambda: None, watchdog_s)
            self._notifier.tell("WATCHDOG=1")
            await asyncio.sleep(watchdog_s / 3)

    async def _stop_in_order(self, network: "asyncio.Task[Any]", mqtt: "asyncio.Task[Any] | None") -> None:
        """Actuators first, the network's farewell and the files after that."""
        self._notifier.tell("STOPPING=1")
        log.info("stopping", exit_code=self._exit_code)
        control = self._control
        control.permit.stop()
        made_safe = await control.safe_states.all_safe("stop", SAFE_LIMIT_S)
        for name, safe in made_safe.items():
            if not safe:
                log.error("not_made_safe_at_stop", device=name)
        if self._delegations is not None:
            await self._bounded("delegations", self._delegations.close(), DELEGATIONS_LIMIT_S)
        if self._automation is not None:
            await self._bounded("automation", self._automation.close(), DELEGATIONS_LIMIT_S)
        await self._bounded("sessions", self._tasks.pause(), PAUSE_LIMIT_S)
        if mqtt is not None and self._local_events is not None:
            mqtt.cancel()
            await self._bounded("mqtt", asyncio.wait([mqtt]), MQTT_LIMIT_S)
            self._local_events.close()
        await self._bounded("outbox", self._outbox.close(), STORE_LIMIT_S)
        network.cancel()
        await self._bounded("network", asyncio.wait([network]), LEAVE_LIMIT_S)
        await self._bounded("socket", self._socket.close(), 1.0)
        await control.guard.bye(made_safe)
        await self._clock_chip.close()
        await control.close()
        await self._background.close()
        await self._hardware.close()
        await self._bounded("counts", self._counts.close(), STORE_LIMIT_S)
        await self._bounded("journal", self._close_store(), STORE_LIMIT_S)
        log.info("stopped", exit_code=self._exit_code)

    async def _close_store(self) -> None:
        await self._journal.close()
        if self._history is not None:
            await self._history.close()
        await self._journal_thread.close()
        await self._store.close()

    async def _bounded(self, what: str, step: Any, limit_s: float) -> None:
        try:
            async with asyncio.timeout(limit_s):
                await step
        except TimeoutError:
            log.error("stop_step_too_slow", step=what, limit_s=limit_s)


def _history(config: Config, store: StoreThread, clock: Clock) -> HistoryRecorder | None:
    if not config.history.enabled:
        return None
    path = config.state.directory / "history.db"
    keep_days, max_bytes = config.history.keep_days, config.history.max_bytes
    return HistoryRecorder(path, keep_days=keep_days, max_bytes=max_bytes, thread=store, clock=clock)
