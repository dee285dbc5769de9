"""The parts of the agent that sessions and requests work with."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from device_agent.clock import Clock
from device_agent.commands.executor import CommandExecutor
from device_agent.config import Config
from device_agent.devices.device import Device
from device_agent.history.history_service import HistoryService
from device_agent.safety.safe_states import SafeStates
from device_agent.store.journal.journal import Journal
from device_agent.store.outbox.outbox import Outbox
from device_agent.tasks.share import Shares
from device_agent.tasks.stream_subscriptions import StreamSubscriptions

# Answers to what is no command, or not allowed, to one caller over all its streams: at once, and a second.
REFUSALS = (100, 20.0)


@dataclass(frozen=True, slots=True)
class Services:
    """One for all tasks of a process. `devices` changes with a reload; the other parts stay."""

    devices: Mapping[str, Device]
    subscriptions: StreamSubscriptions
    executor: CommandExecutor
    safe_states: SafeStates
    outbox: Outbox
    journal: Journal
    history_service: HistoryService
    clock: Clock
    refusals: Shares = field(default_factory=lambda: Shares(*REFUSALS))

    @property
    def config(self) -> Config:
        """The configuration in force: a reload replaces it in the executor, and nowhere else."""
        return self.executor.config
