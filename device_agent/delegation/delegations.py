"""All delegations of one agent: what wakes them, what they share, and where their words go."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_agent.background import BackgroundTasks
from device_agent.clock import Clock
from device_agent.commands.executor import CommandExecutor
from device_agent.config import Config
from device_agent.delegation.delegation_rule import DelegationRule
from device_agent.delegation.prompt_builder import PromptBuilder
from device_agent.delegation.rate_limit import RateLimit
from device_agent.delegation.state_file import StateFile
from device_agent.devices.device import Device
from device_agent.history.history_service import HistoryService
from device_agent.messages import events
from device_agent.network.sessions_api import SessionsApi
from device_agent.records import Reading, ReadingSubscriber, Status
from device_agent.store.journal.journal import Journal
from device_agent.store.store_thread import StoreThread
from device_agent.tasks.stream_subscriptions import StreamSubscriptions

if TYPE_CHECKING:
    import aiohttp

TICK_S = 1.0


class Delegations(ReadingSubscriber):
    """Owns the rules, which are triggered by what devices report."""

    def __init__(
        self,
        config: Config,
        key: str,
        devices: dict[str, Device],
        subscriptions: StreamSubscriptions,
        executor: CommandExecutor,
        history_service: HistoryService,
        journal: Journal,
        thread: StoreThread,
        clock: Clock,
        pool: "Callable[[], aiohttp.ClientSession]",
        rules: dict[str, DelegationRule],
    ) -> None:
        """`rules` are filled by `start`."""
        self.rules = rules
        self._config = config
        self._subscriptions = subscriptions
        self._executor = executor
        self._journal = journal
        self._clock = clock
        self._background = BackgroundTasks("delegations")
        self._book = StateFile(Path(config.state.directory) / "delegations.json", thread)
        self._api = SessionsApi(config.delegation.base_url, key, pool)
        title = config.agent.display_name or config.agent.name
        self._writer = PromptBuilder(title, devices, history_service, clock)

    async def start(self) -> None:
        """Find what the last process left, and go on with it."""
        config = self._config
        await self._book.load(list(config.delegations))
        pace = RateLimit(config.delegation.poll_s, self._clock)
        for name, rule in config.delegations.items():
            self.rules[name] = DelegationRule(
                name,
                rule,
                self._book,
                self._api,
                pace,
                self._writer,
                self._executor,
                self._journal,
                self._clock,
                self._announce,
            )
            if last := self._book.rules[name].last:
                self._subscriptions.remember(name, _event(last))
        for name, one in self.rules.items():
            self._background.run_forever(f"rule {name}", one.run)
        self._background.run_forever("tick", self._tick)

    async def close(self) -> None:
        """What is under way is stored already; the next process goes on."""
        await self._background.close()
        await self._book.save()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            for rule in self.rules.values():
                rule.tick()

    # -- what devices report ----------------------------------------

    def on_reading(self, reading: Reading) -> None:
        for rule in self.rules.values():
            rule.heard(reading)

    def on_status(self, status: Status) -> None:
        for rule in self.rules.values():
            rule.told(status)

    # -- out ----------------------------------------

    def _announce(self, name: str, members: dict[str, Any]) -> None:
        self._subscriptions.announce(name, _event(members))

    def status(self) -> list[dict[str, Any]]:
        """For the owner."""
        return [rule.status() for rule in self.rules.values()]


def _event(members: dict[str, Any]) -> events.EventDraft:
    rest = {key: value for key, value in members.items() if key != "at"}
    return events.control(int(members["at"]), "delegation", rest)
