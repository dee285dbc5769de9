"""What a caller may `do` besides the actions of devices: have a delegation ask its question."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from device_agent.commands.authorization import Actor, check_right, known_device
from device_agent.config.access import AccessConfig
from device_agent.devices.description import describe_action
from device_agent.errors import Rejected
from device_agent.messages.commands import Command, Do, checked_args
from device_agent.records import Action, DeviceState, Value


class DelegationAction(Protocol):
    """One delegation, to callers. Whoever may drive it may have it ask."""

    name: str

    @property
    def action(self) -> Action:
        """The only action that it has."""

    def check(self) -> None:
        """Raises Rejected while it may not ask."""

    async def ask(self, args: Mapping[str, Value], who: str, id_: str) -> None:
        """Returns when the question is stored, so that it is sure to be asked. Raises Rejected."""


def check_do(
    delegations: Mapping[str, DelegationAction],
    known: Collection[str],
    access: AccessConfig,
    command: Command,
    senders: Sequence[Actor],
) -> dict[str, Value]:
    """The arguments of a `do` with a delegation. `known`: what names the sender may use. Raises Rejected."""
    delegation = known_device(access, senders[0], command.device, delegations, known)
    check_right(access, "drive", senders, delegation.name)
    action = delegation.action
    if not isinstance(command, Do):
        raise Rejected("read_only", f"{delegation.name} is a delegation: `do` its action {action.name}")
    if command.action != action.name:
        has = f"it has: {action.name}"
        raise Rejected("invalid_value", f"{delegation.name} has no action {command.action!r}; {has}")
    return checked_args(action, command.args)


def describe_delegation(delegation: DelegationAction) -> dict[str, Any]:
    """A delegation, as a device without points."""
    action = {**describe_action(delegation.action), "description": delegation.action.description}
    return {"device": delegation.name, "state": DeviceState.ONLINE, "points": [], "actions": [action]}
