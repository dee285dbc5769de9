"""What all rules and alerts of one agent share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from device_agent.clock import Clock
from device_agent.commands.executor import CommandExecutor
from device_agent.safety.safe_states import SafeStates
from device_agent.triggers.present import Present
from device_agent.triggers.schedule import TriggerMemory
from device_agent.triggers.state_file import StateFile

if TYPE_CHECKING:
    import aiohttp


@dataclass(slots=True, kw_only=True)
class AutomationState(TriggerMemory):
    """What is stored of one rule or alert."""

    told: bool = False
    """The owner was told that it began, and not yet that it is over."""
    waiting: list[dict[str, Any]] = field(default_factory=list)
    """Messages that nobody has taken yet, oldest first."""

    def kept(self) -> tuple[object, ...]:
        """What must be on the disk soon when it differs: not each change of a condition."""
        newest = [self.asks[-1:], [message["text"] for message in self.waiting]]
        return self.told, self.served, self.day, self.turn_of, newest


@dataclass(frozen=True, slots=True)
class AutomationServices:
    """`title` is the agent's name for people; `outbox_share` how full the outbox is, 0 to 1."""

    title: str
    present: Present
    executor: CommandExecutor
    safe_states: SafeStates
    outbox_share: Callable[[], float]
    session: "Callable[[], aiohttp.ClientSession]"
    state_file: StateFile[AutomationState]
    clock: Clock
