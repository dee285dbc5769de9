"""[access] by point, range and kind of task, and the emergency stop's line: what may be written, what not."""

from collections.abc import Callable

import pytest

from device_agent.config import Config

DEVICES = """
[agent]
name = "a"
[buses.i2c1]
kind = "i2c"
device = "/dev/i2c-1"
[devices.fan]
driver = "fan"
bus = "i2c1"
safe = { speed = 0, steps = 1, label = "" }
[devices.thermo]
driver = "thermo"
bus = "i2c1"
"""


def test_rank_is_the_order_of_the_drive_list(load_text: Callable[..., Config]) -> None:
    access = load_text(
        DEVICES
        + """
[access]
drive = ["user:u", "org:o", "anyone"]
preempt = true
[access.pipe]
drive = ["org:o"]
[access.devices.fan.points.speed]
drive = ["user:u"]
maximum = 50
"""
    ).access
    assert access.preempt
    assert access.rank("fan", {"org:o", "user:u"}) == 0
    assert access.rank("fan", {"org:o"}) == 1
    assert access.rank("fan", set()) == 2
    assert access.allows("drive", "fan", {"user:x"}, "request")
    assert not access.allows("drive", "fan", {"user:x"}, "pipe")
    assert access.allows("drive", "fan", {"org:o"}, "pipe")
    assert access.drives_point("fan", "speed", {"user:u"})
    assert not access.drives_point("fan", "speed", {"org:o"})
    assert access.drives_point("fan", "steps", {"org:o"})
    assert access.point("fan", "speed").maximum == 50


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[access.devices.fan.points.sped]\n", 'did you mean "speed"?'),
        ("[access.devices.thermo.points.temperature]\n", "is not a point that can be set"),
        ("[access.devices.fan.points.speed]\nminimum = 9\nmaximum = 1\n", "swap them"),
        ("[access.devices.fan.points.label]\nmaximum = 1\n", "remove minimum and maximum"),
        ("[access.devices.fan.points.speed]\nread = []\n", "read"),
        ("[access.download]\n", "download"),
        ('[safety]\nstop_device = "thermos"\n', 'did you mean "thermo"?'),
        ('[safety]\nstop_device = "thermo"\n', "use one of alert"),
        ('[safety]\nstop_device = "fan"\nstop_point = "label"\n', "not a boolean point"),
    ],
)
def test_faults_are_named(problems: Callable[..., tuple[str, ...]], text: str, problem: str) -> None:
    found = problems(DEVICES + text)
    assert len(found) == 1
    assert problem in found[0]


def test_a_boolean_point_stops(load_text: Callable[..., Config]) -> None:
    line = '[safety]\nstop_device = "thermo"\nstop_point = "alert"\nstop_active = false\n'
    safety = load_text(DEVICES + line).safety
    assert (safety.stop_device, safety.stop_point, safety.stop_active) == ("thermo", "alert", False)
