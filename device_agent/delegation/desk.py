"""All delegations of one agent: what wakes them, what they share, and where their words go."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_agent import events
from device_agent.channels import Hub
from device_agent.clock import Clock
from device_agent.commander import Commander
from device_agent.config import Config
from device_agent.delegation.book import Book
from device_agent.delegation.pace import Pace
from device_agent.delegation.question import Writer
from device_agent.delegation.rule import Rule
from device_agent.device import Device
from device_agent.history.ask import Historian
from device_agent.lives import Lives
from device_agent.network.sessions_api import SessionsApi
from device_agent.records import Reading, Status
from device_agent.store.journal import Journal
from device_agent.store.thread import StoreThread

if TYPE_CHECKING:
    import aiohttp

TICK_S = 1.0


class Desk:
    """Owns the rules. Implements `device.Sink` for the hub's listeners."""

    def __init__(
        self,
        config: Config,
        key: str,
        devices: dict[str, Device],
        hub: Hub,
        commander: Commander,
        historian: Historian,
        journal: Journal,
        thread: StoreThread,
        clock: Clock,
        pool: "Callable[[], aiohttp.ClientSession]",
    ) -> None:
        self.rules: dict[str, Rule] = {}
        self._config = config
        self._hub = hub
        self._commander = commander
        self._journal = journal
        self._clock = clock
        self._lives = Lives("delegations")
        self._book = Book(Path(config.state.directory) / "delegations.json", thread)
        self._api = SessionsApi(config.delegation.base_url, key, pool)
        title = config.agent.display_name or config.agent.name
        self._writer = Writer(title, devices, historian, clock)

    async def start(self) -> None:
        """Find what the last process left, and go on with it."""
        config = self._config
        await self._book.load(list(config.delegations))
        pace = Pace(config.delegation.poll_s, self._clock)
        for name, rule in config.delegations.items():
            self.rules[name] = Rule(
                name,
                rule,
                self._book,
                self._api,
                pace,
                self._writer,
                self._commander,
                self._journal,
                self._clock,
                self._announce,
            )
            if last := self._book.rules[name].last:
                self._remember(name, last)
        self._commander.questions = self.rules
        self._hub.listeners.append(self)
        for name, one in self.rules.items():
            self._lives.keep(f"rule {name}", one.run)
        self._lives.keep("tick", self._tick)

    async def close(self) -> None:
        """What is under way is stored already; the next process goes on."""
        await self._lives.close()
        await self._book.save()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            for rule in self.rules.values():
                rule.tick()

    # -- device.Sink ----------------------------------------

    def on_reading(self, reading: Reading) -> None:
        for rule in self.rules.values():
            rule.heard(reading)

    def on_status(self, status: Status) -> None:
        for rule in self.rules.values():
            rule.told(status)

    def on_bytes(self, device: str, data: bytes) -> None:
        """No rule listens to bytes."""

    # -- out ----------------------------------------

    def _announce(self, name: str, members: dict[str, Any]) -> None:
        draft = self._remember(name, members)
        self._hub.announce(name, draft)

    def _remember(self, name: str, members: dict[str, Any]) -> events.Draft:
        """The newest event of each is what a new caller gets first, as with readings."""
        rest = {key: value for key, value in members.items() if key != "at"}
        draft = self._hub.announced[name] = events.control(int(members["at"]), "delegation", rest)
        return draft

    def status(self) -> list[dict[str, Any]]:
        """For the owner."""
        return [rule.status() for rule in self.rules.values()]
