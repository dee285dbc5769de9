"""Conditions on other devices while an actuator is away from safe (`only_while` the lid is closed).

Judged by the newest reading of the other device, before anything moves and at every reading. What cannot be
read does not hold.
"""

from collections.abc import Mapping, Sequence

from device_agent.devices.device import Device
from device_agent.driver import Within
from device_agent.errors import Interlocked
from device_agent.records import AGE_UNKNOWN, Value, is_number


class Conditions:
    """The `only_while` of all actuators."""

    def __init__(self, devices: Mapping[str, Device]) -> None:
        self._devices = devices
        self._dependents: dict[str, list[str]] = {}
        """The actuators that have a condition on a device, by its name."""

    def adopt(self, device: Device) -> None:
        """This actuator is new, or has a new configuration."""
        self.forget(device.name)
        for other in getattr(device.config, "only_while", {}):
            self._dependents.setdefault(other, []).append(device.name)

    def forget(self, name: str) -> None:
        """This actuator is no more."""
        for names in self._dependents.values():
            if name in names:
                names.remove(name)

    def check(self, name: str) -> None:
        """Raises Interlocked with the first condition of this device that does not hold."""
        for other, points in getattr(self._devices[name].config, "only_while", {}).items():
            for point, wanted in points.items():
                if fault := self._fault(other, point, wanted):
                    rule = (
                        f"{name} may leave its safe value only while {other}.{point} is {_in_words(wanted)}"
                    )
                    raise Interlocked(f"{rule}; it {fault}", other)

    def depend_on(self, other: str) -> Sequence[str]:
        """The actuators that have a condition on this device."""
        return self._dependents.get(other, ())

    def _fault(self, other: str, point: str, wanted: Value | Within) -> str:
        device = self._devices.get(other)
        if device is None or not device.online or device.latest is None:
            return "cannot be read now"
        value = device.latest.values.get(point)
        if value is None or device.latest.flags.get(point) in AGE_UNKNOWN:
            return "cannot be read now"
        return "" if _holds(value, wanted) else f"is {_in_words(value)}"


def _holds(value: Value, wanted: Value | Within) -> bool:
    if not isinstance(wanted, Within):
        return value == wanted
    if not is_number(value):
        return False
    low, high = wanted.minimum, wanted.maximum
    return (low is None or value >= low) and (high is None or value <= high)


def _in_words(wanted: Value | Within) -> str:
    if isinstance(wanted, Within):
        bounds = [
            f"{side} {bound:g}"
            for side, bound in (("at least", wanted.minimum), ("at most", wanted.maximum))
            if bound is not None
        ]
        return " and ".join(bounds) or "any number"
    return {True: "true", False: "false"}[wanted] if isinstance(wanted, bool) else str(wanted)
