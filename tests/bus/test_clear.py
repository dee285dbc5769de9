"""The I2C bus clear: clock pulses until SDA is free, then a stop condition."""

from typing import Any

import pytest

from device_agent.bus.clear import clear_i2c
from device_agent.bus.gpio import GpioBus
from device_agent.errors import BusError


class HeldLines(GpioBus):
    """SCL (3) and SDA (2) with a chip on them that lets go of SDA after so many pulses."""

    def __init__(self, pulses: int, *, clock_held: bool = False) -> None:
        self.left = pulses
        self.driven: dict[int | str, bool] = {}
        self.clock_held = clock_held
        self.history: list[tuple[int | str, bool]] = []

    def input(self, line: int | str, **options: Any) -> Any:
        return _Line(self, line)

    def output(self, line: int | str, *, active: bool, **options: Any) -> Any:
        assert options == {"drive": "open-drain"}, "nobody may drive an I2C line high"
        made = _Line(self, line)
        made.write(active)
        return made


class _Line:
    def __init__(self, bus: HeldLines, line: int | str) -> None:
        self._bus, self._line = bus, line

    def write(self, active: bool) -> None:
        bus = self._bus
        if self._line == 3 and active and not bus.driven.get(3, True):
            bus.left -= 1
        bus.driven[self._line] = active
        bus.history.append((self._line, active))

    def read(self) -> bool:
        bus = self._bus
        held = bus.clock_held if self._line == 3 else bus.left > 0
        return bus.driven.get(self._line, True) and not held

    def close(self) -> None:
        self._bus.driven.pop(self._line, None)


def no_sleep(_: float) -> None:
    """A fake has no time."""


@pytest.mark.parametrize("pulses", [0, 1, 5, 9])
def test_a_chip_is_clocked_free_with_as_many_pulses_as_it_takes(pulses: int) -> None:
    lines = HeldLines(pulses)
    assert clear_i2c(lines, 3, 2, no_sleep) == pulses
    assert lines.history[-2:] == [(2, False), (2, True)], "SDA rises while SCL is high: a stop"
    assert lines.history.count((3, False)) == pulses
    assert not lines.driven, "all lines given back"


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (HeldLines(99), r"SDA \(line 2\) is held low after 9 clock pulses"),
        (HeldLines(0, clock_held=True), r"SCL \(line 3\) is held low"),
    ],
)
def test_lines_that_stay_low_are_an_error(lines: HeldLines, words: str) -> None:
    with pytest.raises(BusError, match=words):
        clear_i2c(lines, 3, 2, no_sleep)
    assert not lines.driven
