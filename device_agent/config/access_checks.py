"""Checks of [access]: what it names is there and of the right kind."""

from collections.abc import Iterator

from device_agent.config.access import DeviceAccess
from device_agent.config.draft import ConfigDraft, DraftDevice
from device_agent.config.explain import did_you_mean, show
from device_agent.registry import nearest

NO_RANGE = (None, None)


def access(draft: ConfigDraft) -> Iterator[str]:
    """Every fault, one sentence each."""
    for name, rules in draft.access.devices.items() if draft.access is not None else ():
        if name in draft.delegation_names:
            if rules.points:
                yield f"access.devices.{name}.points: a delegation has no points: remove them"
        elif name not in draft.device_names:
            hint = did_you_mean(name, [*draft.device_names, *draft.delegation_names], "remove the table")
            yield f"access.devices.{name} is not a device: {hint}"
        elif name in draft.devices:
            yield from _points(draft.devices[name], rules)
    yield from _holders_named(draft)


def _points(device: DraftDevice, rules: DeviceAccess) -> Iterator[str]:
    writable = {point.name: point for point in device.writable}
    for name, rule in rules.points.items():
        place = f"access.devices.{device.name}.points.{name}"
        if name not in writable:
            hint = did_you_mean(name, writable, f"use {', '.join(writable) or 'none: remove the table'}")
            yield f"{place} is not a point that can be set: {hint}"
        elif rule.minimum is not None and rule.maximum is not None and rule.minimum > rule.maximum:
            yield f"{place}: minimum and maximum are {rule.minimum:g} and {rule.maximum:g}: swap them"
        elif writable[name].type not in ("number", "integer") and (rule.minimum, rule.maximum) != NO_RANGE:
            yield f"{place} has a range, but the point is a {writable[name].type}: remove minimum and maximum"


def _holders_named(draft: ConfigDraft) -> Iterator[str]:
    """Of the lists that let somebody drive, those that name a delegation or a rule that is not there."""
    if draft.access is None:
        return
    lists = {"access": draft.access.drive}
    for device, rules in draft.access.devices.items():
        lists[f"access.devices.{device}"] = rules.drive or ()
        for point, own in rules.points.items():
            lists[f"access.devices.{device}.points.{point}"] = own.drive or ()
    known = {"delegation": draft.delegation_names, "rule": draft.rule_names}
    for place, callers in lists.items():
        for caller in callers:
            kind, _, name = caller.partition(":")
            if kind in known and name not in known[kind]:
                guess = nearest(name, list(known[kind]))
                hint = f'did you mean "{kind}:{guess}"?' if guess else "remove it"
                yield f"{place}.drive has {show(caller)}, which is not a {kind}: {hint}"
