"""What all delegations of one agent share."""

from dataclasses import dataclass

from device_agent.clock import Clock
from device_agent.commands.executor import CommandExecutor
from device_agent.delegation.exchange import RuleState
from device_agent.delegation.prompt_builder import PromptBuilder
from device_agent.delegation.rate_limit import RateLimit
from device_agent.network.sessions_api import SessionsApi
from device_agent.store.journal.journal import Journal
from device_agent.triggers.state_file import StateFile


@dataclass(frozen=True, slots=True)
class DelegationServices:
    """`rate_limit` is shared, since the service counts the requests of its key."""

    api: SessionsApi
    rate_limit: RateLimit
    prompts: PromptBuilder
    state_file: StateFile[RuleState]
    executor: CommandExecutor
    journal: Journal
    clock: Clock
