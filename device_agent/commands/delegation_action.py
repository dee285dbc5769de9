"""What a caller may `do` besides devices: have the agent ask somebody (a delegation)."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from device_agent.commands.authorization import Actor, check_drive, known_device
from device_agent.config.access import AccessConfig
from device_agent.devices.description import describe_action
from device_agent.errors import Rejected
from device_agent.messages.commands import Command, Do, checked_args
from device_agent.records import Action, DeviceState, Value


class DelegationAction(Protocol):
    """One of them. The right to drive it is the right to ask it."""

    name: str

    @property
    def action(self) -> Action:
        """The one action there is."""

    def check(self) -> None:
        """Raises Rejected while it may not be asked."""

    async def ask(self, args: Mapping[str, Value], who: str, id_: str) -> None:
        """Returns when it is sure to be asked. Raises Rejected."""


def checked(
    questions: Mapping[str, DelegationAction],
    devices: Collection[str],
    access: AccessConfig,
    command: Command,
    actors: Sequence[Actor],
    bounds: Collection[str] | None,
) -> dict[str, Value]:
    """The arguments of a `do` that the first of these actors sent, or any of the others. Raises Rejected."""
    known = bounds if bounds is not None else (*devices, *questions)
    question = known_device(access, actors[0], command.device, questions, known)
    check_drive(access, actors, question.name)
    action = question.action
    if not isinstance(command, Do):
        raise Rejected("read_only", f"{question.name} is a delegation: `do` its action {action.name}")
    if command.action != action.name:
        known = f"it has: {action.name}"
        raise Rejected("invalid_value", f"{question.name} has no action {command.action!r}; {known}")
    return checked_args(action, command.args)


def describe_delegation(question: DelegationAction) -> dict[str, Any]:
    """A delegation, as a device without points."""
    action = question.action
    told = {**describe_action(action), "description": action.description}
    return {"device": question.name, "state": DeviceState.ONLINE, "points": [], "actions": [told]}
