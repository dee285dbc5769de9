"""Checks of [delegations.NAME] against devices, streams and access: what it names is there and allowed."""

from collections.abc import Iterator, Mapping

from device_agent.config.delegation import (
    BUILT_IN_AGENTS,
    PLACEHOLDER,
    Delegation,
    holder,
)
from device_agent.config.draft import ConfigDraft
from device_agent.config.explain import show
from device_agent.config.trigger import AllowedCommand
from device_agent.config.trigger_checks import checked_command, conditions, not_there
from device_agent.records import is_number

ALWAYS = ("agent", "time")


def delegations(draft: ConfigDraft) -> Iterator[str]:
    """Every fault of a delegation that its own table cannot see."""
    for name, rule in draft.delegations.items():
        place = f"delegations.{name}"
        if name in draft.device_names:
            yield f"{place} has the name of a device: a `do` must mean one of them; give it another name"
        yield from conditions(draft, place, rule.when)
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
            yield not_there(where, name, "device", draft.device_names)
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
        yield not_there(where, rule.stream, "stream", draft.stream_names)
    elif stream is not None and (stream.format != "events" or not stream.outward):
        yield f"{where} carries no events to callers: name one that is outbound or bidirectional"


def _command(draft: ConfigDraft, rule: str, place: str, command: AllowedCommand) -> Iterator[str]:
    problem, values = checked_command(draft, place, command)
    if problem:
        yield problem
    elif command.device in draft.devices:
        yield from _access(draft, rule, place, command, values)


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
