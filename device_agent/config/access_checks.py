"""Checks of [access] and of the emergency stop's line: what they name is there and of the right kind."""

from collections.abc import Iterator

from device_agent.config.access import DeviceAccess
from device_agent.config.draft import ConfigDraft, DraftDevice
from device_agent.config.explain import show
from device_agent.registry import nearest


def access_and_stop(draft: ConfigDraft) -> Iterator[str]:
    """Every fault, one sentence each."""
    for name, rules in draft.access.devices.items() if draft.access is not None else ():
        if name in draft.delegation_names:
            if rules.points:
                yield f"access.devices.{name}.points: a delegation has no points: remove them"
        elif name not in draft.device_names:
            guess = nearest(name, [*draft.device_names, *draft.delegation_names])
            hint = f'did you mean "{guess}"?' if guess else "remove the table"
            yield f"access.devices.{name} is not a device: {hint}"
        elif name in draft.devices:
            yield from _points(draft.devices[name], rules)
    yield from _delegations_named(draft)
    yield from _stop_line(draft)


def _points(device: DraftDevice, rules: DeviceAccess) -> Iterator[str]:
    writable = {point.name: point for point in device.writable}
    for name, rule in rules.points.items():
        place = f"access.devices.{device.name}.points.{name}"
        if name not in writable:
            guess = nearest(name, list(writable))
            known = ", ".join(writable) or "none: remove the table"
            hint = f'did you mean "{guess}"?' if guess else f"use {known}"
            yield f"{place} is not a point that can be set: {hint}"
        elif rule.minimum is not None and rule.maximum is not None and rule.minimum > rule.maximum:
            yield f"{place}: minimum and maximum are {rule.minimum:g} and {rule.maximum:g}: swap them"
        elif writable[name].type not in ("number", "integer") and (rule.minimum, rule.maximum) != (
            None,
            None,
        ):
            yield f"{place} has a range, but the point is a {writable[name].type}: remove minimum and maximum"


def _delegations_named(draft: ConfigDraft) -> Iterator[str]:
    """Of the lists that let somebody drive, those that name a delegation that is not there."""
    if draft.access is None:
        return
    lists = {"access": draft.access.drive}
    for device, rules in draft.access.devices.items():
        lists[f"access.devices.{device}"] = rules.drive or ()
        for point, own in rules.points.items():
            lists[f"access.devices.{device}.points.{point}"] = own.drive or ()
    for place, callers in lists.items():
        for caller in callers:
            kind, _, name = caller.partition(":")
            if kind == "delegation" and name not in draft.delegation_names:
                guess = nearest(name, list(draft.delegation_names))
                hint = f'did you mean "delegation:{guess}"?' if guess else "remove it"
                yield f"{place}.drive has {show(caller)}, which is not a delegation: {hint}"


def _stop_line(draft: ConfigDraft) -> Iterator[str]:
    wanted = draft.safety.stop_device if draft.safety is not None else None
    if wanted is None or draft.safety is None:
        return
    place = f"safety.stop_device = {show(wanted)}"
    if wanted not in draft.device_names:
        guess = nearest(wanted, list(draft.device_names))
        yield f"{place} is not a device: " + (f'did you mean "{guess}"?' if guess else "remove the key")
    elif wanted in draft.devices:
        points = {point.name: point for point in draft.devices[wanted].points}
        point = points.get(draft.safety.stop_point)
        known = ", ".join(name for name, one in points.items() if one.type == "boolean") or "none"
        if point is None or point.type != "boolean":
            yield (
                f"safety.stop_point = {show(draft.safety.stop_point)} is not a boolean point of {wanted}: "
                f"use one of {known}"
            )
        elif point.write:
            yield f"{place} is driven by the agent itself: name a device that is only read"
