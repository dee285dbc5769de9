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

_HOME = {
    "Board": "device_agent.testing.board",
    "SteppedClock": "device_agent.testing.board",
    "ensure_board": "device_agent.testing.board",
    "open_handle": "device_agent.testing.board",
    "check_driver": "device_agent.testing.check",
    "Chip": "device_agent.testing.chips",
    "Drive": "device_agent.testing.chips",
    "GpioChip": "device_agent.testing.chips",
    "I2cChip": "device_agent.testing.chips",
    "MqttChip": "device_agent.testing.chips",
    "Nack": "device_agent.testing.chips",
    "OneWireChip": "device_agent.testing.chips",
    "Publication": "device_agent.testing.chips",
    "Quantity": "device_agent.testing.chips",
    "RegisterChip": "device_agent.testing.chips",
    "SerialChip": "device_agent.testing.chips",
    "SpiChip": "device_agent.testing.chips",
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
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
