"""What is wired to a GPIO device whose driver brings no simulator: a contact that can be set by name."""

from typing import Self

from device_agent.driver import Actuator
from device_agent.testing.board.medium import Placed
from device_agent.testing.chips import Drive, GpioChip


class Switch(GpioChip):
    """`active` of an input device: set, it drives the line; until then the line is left to its pull."""

    def __init__(self, line: int, active_low: bool, pull_up: bool) -> None:
        super().__init__({"active": pull_up is not active_low})
        self._line = line
        self._active_low = active_low
        self._touched = False

    @classmethod
    def of(cls, placed: Placed) -> Self | None:
        """The contact for an input with one numbered line; None for anything else."""
        line = getattr(placed.config, "line", None)
        if issubclass(placed.driver, Actuator) or not isinstance(line, int):
            return None
        active_low = bool(getattr(placed.config, "active_low", False))
        return cls(line, active_low, getattr(placed.config, "bias", None) == "pull-up")

    def changed(self, quantity: str) -> None:
        self._touched = True

    def drives(self) -> tuple[Drive, ...]:
        if not self._touched:
            return ()
        return (Drive(self._line, bool(self._quantities["active"]) is not self._active_low),)
