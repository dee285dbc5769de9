"""Hooks around opening and closing an actuator, for the guard process; by default they do nothing."""

from typing import Any

from device_agent.bus.core import Handle
from device_agent.driver import Driver


class ActuatorHooks:
    """Passed to each `Device`, which calls them for those that it asks about."""

    def concerns(self, device: str, *, is_actuator: bool) -> bool:
        """Whether this device's openings are to be told."""
        return False

    def handle(self, handle: Handle) -> Handle:
        """The bus handle that the driver gets, in place of this one."""
        return handle

    def open(self, device: str, driver: Driver[Any, Any]) -> Any:
        """Open the driver, on its bus's thread. The result is passed to `opened`."""
        driver.open()

    def opened(self, device: str, result: Any) -> None:
        """On the event loop, before anybody can drive the device."""

    async def closed(self, device: str) -> None:
        """On the event loop, after the driver was closed; its bus is not opened again before this returns."""
