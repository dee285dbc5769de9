"""The service, the devices and the limits of one delegation, in memory and without waiting."""

from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from device_agent.delegation.exchange import Exchange, RuleState
from device_agent.delegation.prompt_builder import PromptBuilder
from device_agent.delegation.rate_limit import RateLimit
from device_agent.delegation.services import DelegationServices
from device_agent.errors import NetworkError
from device_agent.history.history_service import HistoryService
from device_agent.messages.acks import Ack
from device_agent.network.sessions_api import Opened
from device_agent.store.store_thread import StoreThread
from device_agent.testing import SteppedClock
from device_agent.triggers.state_file import StateFile
from device_agent.triggers.timestamps import stamp


class ScriptedApi:
    """Each request takes the next entry of its script: an error to raise, or what it returns."""

    def __init__(self) -> None:
        self.opening: deque[NetworkError | None] = deque()
        self.following: deque[NetworkError | None] = deque()
        self.answers: deque[NetworkError | str | None] = deque()
        self.sent: list[str] = []
        self.polls = 0

    async def create(self, agent: Mapping[str, Any], message: str, *, private: bool) -> Opened:
        self.sent.append(message)
        if self.opening and (error := self.opening.popleft()) is not None:
            raise error
        return Opened("session-1", "https://service/first", "https://page")

    async def follow_up(self, session: str, message: str) -> str:
        self.sent.append(message)
        if self.following and (error := self.following.popleft()) is not None:
            raise error
        return f"https://service/{len(self.sent)}"

    async def final_message(self, link: str) -> str | None:
        self.polls += 1
        answer = self.answers.popleft() if self.answers else None
        if isinstance(answer, NetworkError):
            raise answer
        return answer


class NoWait(RateLimit):
    """Time passes on the stepped clock instead."""

    def __init__(self, clock: SteppedClock) -> None:
        super().__init__(10, clock)
        self._stepped = clock

    async def acquire(self) -> None:
        pass

    def poll_after_s(self, polls: int) -> float:
        self._stepped.step(10)
        return 0.0

    def retry_after_s(self, error: NetworkError, tries: int) -> float:
        self._stepped.step(10)
        return 0.0


class RecordingExecutor:
    """Answers each command with `done`."""

    def __init__(self) -> None:
        self.commands: list[Any] = []
        self.released: list[str] = []
        self.leases = self

    async def execute(self, command: Any, actor: Any, *, age_ms: float, for_s: float | None) -> Ack:
        self.commands.append((command, actor.holder, for_s))
        return Ack(command.id, verified=True, repeated=True)

    def release(self, holder: str) -> None:
        self.released.append(holder)


class RecordingJournal:
    """Keeps the rows of actuations."""

    def __init__(self) -> None:
        self.rows: list[tuple[Any, ...]] = []

    def actuation(self, *row: Any) -> None:
        self.rows.append(row)


class Service:
    """Everything that a delegation needs."""

    def __init__(self, folder: Path) -> None:
        self.clock = SteppedClock()
        self.api = ScriptedApi()
        self.executor = RecordingExecutor()
        self.journal = RecordingJournal()
        self.thread = StoreThread()
        self.state_file = StateFile(folder / "delegations.json", self.thread, RuleState)
        self.state = self.state_file.rules["r"] = RuleState(active=True)
        prompts = PromptBuilder("Farm", {}, HistoryService("Farm", None, {}, self.clock), self.clock)
        self.services = DelegationServices(
            self.api,  # type: ignore[arg-type]
            NoWait(self.clock),
            prompts,
            self.state_file,
            self.executor,  # type: ignore[arg-type]
            self.journal,  # type: ignore[arg-type]
            self.clock,
        )

    def exchange(self, **options: Any) -> Exchange:
        """A question that waits to be sent, stored as the delegation's."""
        began = stamp(self.clock)
        exchange = Exchange(id="e", cause="hot", conditional=True, asked_at_ms=7, began=began, message="Hot?")
        self.state.exchange = replace(exchange, **options)
        return self.state.exchange
