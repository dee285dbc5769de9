"""A device as a caller may know it: points, actions, health."""

from typing import Any

from device_agent.devices.device import Device
from device_agent.records import Action


def describe(device: Device) -> dict[str, Any]:
    """A device as a caller may know it: points, actions, health."""
    points = []
    for point in device.points.values():
        entry: dict[str, Any] = {"name": point.name, "type": point.type, "write": point.write}
        optional = {
            "unit": point.unit or None,
            "low": point.low,
            "high": point.high,
            "minimum": point.minimum,
            "maximum": point.maximum,
            "description": point.description or None,
        }
        entry.update({key: value for key, value in optional.items() if value is not None})
        if point.write:
            entry["safe"] = device.safe_values.get(point.name)
        points.append(entry)
    actions = [describe_action(action) for action in device.driver_class.all_actions()]
    described: dict[str, Any] = {"device": device.name, "state": device.state, "points": points}
    if actions:
        described["actions"] = actions
    if device.period_s is not None:
        described["every_s"] = device.period_s
    return described


def describe_action(action: Action) -> dict[str, Any]:
    arguments = [
        {"name": a.name, "type": a.type, "unit": a.unit, "required": a.required} for a in action.arguments
    ]
    gives = {"gives": action.gives} if action.gives else {}
    return {"name": action.name, "moves": action.moves, **gives, "arguments": arguments}
