"""Checks of what triggers, and of what it causes, against the devices."""

from collections.abc import Collection, Iterator, Mapping

from device_agent.config.draft import ConfigDraft, DraftDevice
from device_agent.config.explain import did_you_mean, show
from device_agent.config.trigger import AllowedCommand, When
from device_agent.driver import Value
from device_agent.errors import Rejected
from device_agent.messages.commands import checked_args, checked_values

_NUMBERS = ("number", "integer")


def not_there(where: str, name: str, what: str, names: Collection[str]) -> str:
    """The sentence for a name that is not one of these."""
    hint = did_you_mean(name, names, f"there are {', '.join(names) or 'none yet'}")
    return f"{where} is not a {what}: {hint}"


def conditions(draft: ConfigDraft, place: str, when: When | None) -> Iterator[str]:
    """Every fault of a `when` that its own table cannot see."""
    if when is None or when.timed:
        return
    if when.device not in draft.device_names:
        where = f"{place}.when.device = {show(when.device)}"
        yield not_there(where, when.device, "device", draft.device_names)
        return
    device = draft.devices.get(when.device)
    if device is None or not when.point:
        return
    points = {point.name: point for point in device.points}
    if when.point not in points:
        where = f"{place}.when.point = {show(when.point)}"
        yield not_there(where, when.point, f"point of {when.device}", points)
        return
    kind = points[when.point].type
    wanted = (
        _NUMBERS if when.equals is None else ("boolean",) if isinstance(when.equals, bool) else ("string",)
    )
    if kind not in wanted:
        remedy = "above or below" if kind in _NUMBERS else f"equals with a {kind}"
        yield f"{place}.when: {when.device}.{when.point} is a {kind}: use {remedy}"


def checked_command(
    draft: ConfigDraft, place: str, command: AllowedCommand
) -> tuple[str, Mapping[str, Value]]:
    """What is wrong with a command ("" if nothing is), and the values that it sets."""
    if command.device not in draft.device_names:
        where = f"{place}.device = {show(command.device)}"
        return not_there(where, command.device, "device", draft.device_names), {}
    device = draft.devices.get(command.device)
    if device is None:
        return "", {}  # its own table is wrong, which is reported already
    try:
        if command.values:
            points = {point.name: point for point in device.points}
            return "", checked_values(dict(command.values), points, device.name)
        _check_action(device, command)
    except Rejected as rejected:
        return f"{place}: {rejected.message}", {}
    return "", {}


def _check_action(device: DraftDevice, command: AllowedCommand) -> None:
    # An action that makes a file has no receiver here.
    actions = {action.name: action for action in device.driver.actions if not action.gives}
    if command.action not in actions:
        known = ", ".join(sorted(actions)) or "none"
        raise Rejected("invalid_value", f"{device.name} has no action {command.action!r}; it has: {known}")
    checked_args(actions[command.action], command.args)
