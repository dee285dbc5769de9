"""A command that is allowed, what it would do, and what comes of it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from math import inf

from device_agent.commands.authorization import Actor
from device_agent.devices.device import Device
from device_agent.errors import Fault, Rejected
from device_agent.messages.acks import Ack, AckState
from device_agent.messages.commands import Command, Set
from device_agent.records import SEND_FILE, Action, Value
from device_agent.safety.permit import Motion

Send = Callable[[Device], Awaitable[None]]
"""Passes the file that came with a command to the device."""


@dataclass(slots=True)
class Outcome:
    """What a command has come to so far."""

    state: AckState = AckState.DONE
    commanded: Mapping[str, Value] | None = None
    applied: Mapping[str, Value] | None = None
    verified: bool = False
    error: Fault | None = None

    def fail(self, state: AckState, code: str, message: str) -> None:
        self.state, self.error = state, Fault(code, message)

    def ack(self, id_: str) -> Ack:
        return Ack(id_, self.state, self.commanded, self.applied, self.verified, self.error)


@dataclass(frozen=True, slots=True)
class CommandPlan:
    """Values to set, or an action to carry out."""

    command: Command
    device: Device
    senders: tuple[Actor, ...]
    """Who sent it, first; and who else may have, on a stream where nobody can tell."""
    rank: int
    """Of the sender that comes last by the owner's access list."""
    deadline_s: float = inf
    """Monotonic; from then on it moves nothing."""
    values: dict[str, Value] | None = None
    action: Action | None = None
    args: dict[str, Value] = field(default_factory=dict)
    for_s: float | None = None
    """A set goes back to safe after so long."""
    made_safe: int = 0
    """How often commands had made the device safe when it came."""
    send: Send | None = None

    @property
    def actor(self) -> Actor:
        """The sender that the command is counted to: its lease, its row in the Journal."""
        return self.senders[0]

    @property
    def commanded(self) -> Mapping[str, Value]:
        """As the ack says it."""
        return self.args if self.values is None else self.values

    @property
    def motion(self) -> Motion:
        """As the permit is asked about it."""
        return Motion(
            self.device.name,
            self.actor.holder,
            self.deadline_s,
            self.command.ttl_ms,
            is_actuator=self.device.is_actuator,
            read_only=self.read_only,
            made_safe=self.made_safe if self.moves and not self.makes_safe else None,
            makes_safe=self.makes_safe,
        )

    @property
    def read_only(self) -> bool:
        return self.action is not None and self.action.read_only

    @property
    def moves(self) -> bool:
        return self.action is None or self.action.moves

    @property
    def makes_safe(self) -> bool:
        """Whether all that it sets is the safe value."""
        return self.values is not None and is_safe(self.device, self.values)


def is_safe(device: Device, values: Mapping[str, Value]) -> bool:
    """Whether all of these are the device's safe values."""
    safe = device.safe_values
    return all(name in safe and safe[name] == value for name, value in values.items())


def describe(command: Command, for_s: float | None = None) -> str:
    """What is wanted, for the Journal and the log."""
    if isinstance(command, Set):
        values = ", ".join(f"{name}={value!r}" for name, value in command.values.items())
        return values if for_s is None else f"{values} for {for_s:g} s"
    args = ", ".join(f"{name}={value!r}" for name, value in command.args.items())
    return f"{command.action}({args})"


def check_files(plan: CommandPlan, *, takes_file: bool) -> None:
    """Raises Rejected `invalid_value` for a file that nobody would get, that is missing, or one too many.

    `takes_file`: the caller can be given one.
    """
    if plan.action is SEND_FILE and plan.send is None:
        raise Rejected("invalid_value", "send_file needs a file: ask by a request task with a part 'file'")
    if plan.action is not SEND_FILE and plan.send is not None:
        name = plan.action.name if plan.action is not None else "set"
        raise Rejected("invalid_value", f"file: {name} takes no file")
    if plan.action is not None and plan.action.gives and not takes_file:
        raise Rejected(
            "invalid_value",
            f"{plan.action.name} gives a file, which no event can carry: ask for it in a request task",
        )


def action_of(device: Device, name: str) -> Action:
    """Raises Rejected `invalid_value` for an action that there is not."""
    actions = {action.name: action for action in device.driver_class.all_actions()}
    if name not in actions:
        known = ", ".join(sorted(actions)) or "none"
        raise Rejected("invalid_value", f"{device.name} has no action {name!r}; it has: {known}")
    return actions[name]
