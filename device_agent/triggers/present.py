"""What the devices say now, as words in a sentence."""

import json
from collections.abc import Mapping

from device_agent.devices.device import Device
from device_agent.records import Value
from device_agent.text.printable import printable

TEXT_MAX = 200


class Present:
    """The newest values and the health of the devices."""

    def __init__(self, devices: Mapping[str, Device]) -> None:
        self._devices = devices

    def state_of(self, device: str) -> str:
        """A device's health."""
        return str(self._devices[device].state) if device in self._devices else "not there"

    def value_of(self, device: str, point: str) -> str:
        """The newest value; "unknown" where there is none to be believed."""
        found = self._devices.get(device)
        if found is None or not found.online or found.latest is None:
            return "unknown"
        return shown(found.latest.values.get(point))


def shown(value: Value) -> str:
    """A value as it stands in a sentence. Text from a device is one line, and short."""
    if value is None:
        return "unknown"
    if isinstance(value, str):
        return printable(value, TEXT_MAX)
    return f"{value:.6g}" if isinstance(value, float) else json.dumps(value)
