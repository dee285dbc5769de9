"""What stands by an actuator while it is opened, driven and closed. By default nobody does."""

from typing import Any

from device_agent.bus.core import Handle
from device_agent.driver import Driver


class ActuatorHooks:
    """The hooks of `Device`; `safety.guard_client` fills them."""

    def handle(self, handle: Handle) -> Handle:
        """What the driver is given as its bus."""
        return handle

    def open(self, device: str, driver: Driver[Any, Any]) -> Any:
        """Open the driver, on its bus's thread. What it returns goes to `opened`."""
        driver.open()

    def opened(self, device: str, made: Any) -> None:
        """On the event loop, before anybody can drive the device."""

    def check(self, device: str) -> None:
        """On the bus's thread, before anything moves. Raises Rejected."""

    async def closed(self, device: str) -> None:
        """On the event loop, after the driver was closed; its bus is not opened again before this returns."""
