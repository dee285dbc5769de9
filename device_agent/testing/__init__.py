"""Fakes that work, for this package's tests and for a third party's: chips, a simulated board, checks.

Everything is loaded when first used, so that a driver that names its simulator here costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from device_agent.testing.board import Board, SteppedClock, ensure_board, open_handle
    from device_agent.testing.check import check_driver
    from device_agent.testing.chips import (
        Chip,
        Drive,
        GpioChip,
        I2cChip,
        MqttChip,
        Nack,
        OneWireChip,
        Publication,
        Quantity,
        RegisterChip,
        SerialChip,
        SpiChip,
    )

# All others are in `chips`.
_MODULES = {
    "Board": "board",
    "SteppedClock": "board",
    "check_driver": "check",
    "ensure_board": "board",
    "open_handle": "board",
}

__all__ = [
    "Board",
    "Chip",
    "Drive",
    "GpioChip",
    "I2cChip",
    "MqttChip",
    "Nack",
    "OneWireChip",
    "Publication",
    "Quantity",
    "RegisterChip",
    "SerialChip",
    "SpiChip",
    "SteppedClock",
    "check_driver",
    "ensure_board",
    "open_handle",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'chips')}"), name)
