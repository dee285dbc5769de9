"""Making the far end of a simulated bus say something, so that a device that is only told has a reading."""

from collections.abc import Sequence
from typing import Any

from device_agent.testing.board import Board, SteppedClock
from device_agent.testing.chips import GpioChip, SerialChip

# How long a simulated knob may take for one step of its quantity.
TURN_S = 0.1


def speak(board: Board, device: str, feed: Sequence[Any], clock: SteppedClock) -> None:
    """`feed` (bytes for a serial port, (topic, payload) for MQTT), or else whatever the chip can say."""
    bus, chip = str(board.devices[device].config.bus), board.chip(device)
    for chunk in feed:
        if isinstance(chunk, bytes):
            board.feed(bus, chunk)
        else:
            board.say(bus, *chunk)
    if chip is None or feed:
        return
    for quantity, value in chip.quantities().items():
        if isinstance(value, bool):  # a contact speaks by changing
            board.set(device, **{quantity: not value})
        if isinstance(chip, GpioChip) and not isinstance(value, bool | str):  # a knob, by being turned
            board.set(device, **{quantity: value + 1})
            clock.step(TURN_S)
        board.set(device, **{quantity: value})
    if isinstance(chip, SerialChip) and chip.every_s is not None:
        clock.step(chip.every_s * 1.01)
