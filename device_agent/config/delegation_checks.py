"""Checks of [delegations.NAME] against devices, streams and access: what it names is there and allowed."""

from collections.abc import Collection, Iterator, Mapping

from device_agent.config.delegation import (
    BUILT_IN_AGENTS,
    PLACEHOLDER,
    AllowedCommand,
    Delegation,
    holder,
)
from device_agent.config.draft import ConfigDraft, DraftDevice
from device_agent.config.explain import did_you_mean, show
from device_agent.errors import Rejected
from device_agent.messages.commands import checked_args, checked_values
from device_agent.records import is_number

ALWAYS = ("agent", "time")
_NUMBERS = ("number", "integer")


def delegations(draft: ConfigDraft) -> Iterator[str]:
    """Every fault of a delegation that its own table cannot see."""
    for name, rule in draft.delegations.items():
        place = f"delegations.{name}"
        if name in draft.device_names:
            yield f"{place} has the name of a device: a `do` must mean one of them; give it another name"
        yield from _when(draft, place, rule)
        for key, text in rule.templates.items():
            yield from _template(draft, f"{place}.{key}", text, rule)
        yield from _readings(draft, place, rule)
        yield from _stream(draft, place, rule)
        if rule.follow_up.ended is not None and (rule.when is None or rule.when.timed):
            yield f"{place}.follow_up.ended needs a `when` that ends, with a device: remove it"
        if not rule.commands:
            for key in ("acted", "unclear"):
                if getattr(rule.follow_up, key) is not None:
                    yield f"{place}.follow_up.{key} needs commands: add them, or remove it"
        for key, command in rule.commands.items():
            yield from _command(draft, name, f"{place}.commands.{key}", command)


def delegation_warnings(draft: ConfigDraft) -> Iterator[str]:
    """What is allowed and probably not meant."""
    for name, rule in draft.delegations.items():
        place = f"delegations.{name}"
        if rule.agent is not None and rule.agent not in BUILT_IN_AGENTS:
            known = ", ".join(BUILT_IN_AGENTS)
            yield f"{place}.agent = {show(rule.agent)} is none of the built-in {known}: is it right?"
        if rule.stream is None and not rule.commands:
            yield f"{place} has neither stream nor commands: its answers are seen by the owner alone"
        drivers = draft.access.callers("drive", name) if draft.access is not None else ()
        if rule.when is None and not drivers:
            yield f"{place} has no `when` and no caller may ask it: only the owner can, on the device"


def _not_there(where: str, name: str, what: str, names: Collection[str]) -> str:
    hint = did_you_mean(name, names, f"there are {', '.join(names) or 'none yet'}")
    return f"{where} is not a {what}: {hint}"


def _when(draft: ConfigDraft, place: str, rule: Delegation) -> Iterator[str]:
    when = rule.when
    if when is None or when.timed:
        return
    if when.device not in draft.device_names:
        where = f"{place}.when.device = {show(when.device)}"
        yield _not_there(where, when.device, "device", draft.device_names)
        return
    device = draft.devices.get(when.device)
    if device is None or not when.point:
        return
    points = {point.name: point for point in device.points}
    if when.point not in points:
        where = f"{place}.when.point = {show(when.point)}"
        yield _not_there(where, when.point, f"point of {when.device}", points)
        return
    kind = points[when.point].type
    wanted = (
        _NUMBERS if when.equals is None else ("boolean",) if isinstance(when.equals, bool) else ("string",)
    )
    if kind not in wanted:
        remedy = "above or below" if kind in _NUMBERS else f"equals with a {kind}"
        yield f"{place}.when: {when.device}.{when.point} is a {kind}: use {remedy}"


def _template(draft: ConfigDraft, place: str, text: str, rule: Delegation) -> Iterator[str]:
    for key in dict.fromkeys(PLACEHOLDER.findall(text)):
        if key in ALWAYS:
            continue
        if key == "question":
            if rule.when is not None:
                yield f"{place} has {{question}}, which only a caller's `do` brings: remove it, or `when`"
            continue
        name, _, point = key.partition(".")
        if name in draft.device_names and name not in draft.devices:
            continue  # its own table is wrong, which is reported already
        device = draft.devices.get(name)
        points = [one.name for one in device.points] if device is not None else []
        if point not in points:
            what = f"point of {name}" if device is not None else "reading"
            names = points if device is not None else [*draft.device_names, *ALWAYS]
            yield (
                f"{place} has {{{key}}}, which is not a {what}: use {', '.join(names) or 'none'}"
                + ("" if device is not None else ", a device with its point")
            )


def _readings(draft: ConfigDraft, place: str, rule: Delegation) -> Iterator[str]:
    if rule.readings is None:
        return
    for name in rule.readings.devices:
        if name not in draft.device_names:
            where = f"{place}.readings.devices has {show(name)}, which"
            yield _not_there(where, name, "device", draft.device_names)
        elif name in draft.devices and not draft.devices[name].points:
            yield f"{place}.readings.devices has {show(name)}, which has no points: remove it"
    if rule.readings.last_s is not None and not draft.history_enabled:
        yield f"{place}.readings.last_s needs the record: set history.enabled = true, or remove it"


def _stream(draft: ConfigDraft, place: str, rule: Delegation) -> Iterator[str]:
    if rule.stream is None:
        return
    where = f"{place}.stream = {show(rule.stream)}"
    stream = draft.streams.get(rule.stream)
    if rule.stream not in draft.stream_names:
        yield _not_there(where, rule.stream, "stream", draft.stream_names)
    elif stream is not None and (stream.format != "events" or not stream.outward):
        yield f"{where} carries no events to callers: name one that is outbound or bidirectional"


def _command(draft: ConfigDraft, rule: str, place: str, command: AllowedCommand) -> Iterator[str]:
    if command.device not in draft.device_names:
        where = f"{place}.device = {show(command.device)}"
        yield _not_there(where, command.device, "device", draft.device_names)
        return
    device = draft.devices.get(command.device)
    if device is None:
        return
    try:
        if command.values:
            values = checked_values(dict(command.values), {p.name: p for p in device.points}, device.name)
        else:
            values = {}
            _check_action(device, command)
    except Rejected as rejected:
        yield f"{place}: {rejected.message}"
        return
    yield from _access(draft, rule, place, command, values)


def _check_action(device: DraftDevice, command: AllowedCommand) -> None:
    # An action that makes a file has no receiver here.
    actions = {action.name: action for action in device.driver.actions if not action.gives}
    if command.action not in actions:
        known = ", ".join(sorted(actions)) or "none"
        raise Rejected("invalid_value", f"{device.name} has no action {command.action!r}; it has: {known}")
    checked_args(actions[command.action], command.args)


def _access(
    draft: ConfigDraft, rule: str, place: str, command: AllowedCommand, values: Mapping[str, object]
) -> Iterator[str]:
    access, me = draft.access, holder(rule)
    if access is None:
        return
    if not access.allows("drive", command.device, {me}):
        yield (
            f'{place}: access does not let it drive {command.device}: add "{me}" to access.drive, or to '
            f"access.devices.{command.device}.drive"
        )
        return
    for point, value in values.items():
        own = access.point(command.device, point)
        if not access.drives_point(command.device, point, {me}):
            yield f'{place}: add "{me}" to access.devices.{command.device}.points.{point}.drive'
        elif is_number(value):
            low, high = own.minimum, own.maximum
            if (low is not None and value < low) or (high is not None and value > high):
                yield f"{place}.values.{point} = {value!r} is outside access.devices.{command.device}'s range"
