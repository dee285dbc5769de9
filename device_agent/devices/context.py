"""What the parts around the devices have in common."""

from dataclasses import dataclass

from device_agent.clock import Clock
from device_agent.devices.device import Device
from device_agent.store.journal.journal import Journal


@dataclass(frozen=True, slots=True)
class Context:
    """Made first of all, with no devices: `Hardware` fills and follows the configuration in `devices`."""

    devices: dict[str, Device]
    journal: Journal
    clock: Clock
