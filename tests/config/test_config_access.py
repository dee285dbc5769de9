"""[access] by point, range and kind of task, and the emergency stop's line: what may be written, what not."""

from collections.abc import Callable
from pathlib import Path

import pytest

from device_agent.config import Config, load
from device_agent.errors import ConfigError

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


STOP = """
[agent]
name = "a"
[buses.pins]
kind = "gpio"
chip = "gpiochip0"
{bus}
[devices.button]
driver = "gpio-input"
bus = "pins"
line = 4
[safety]
stop_device = "button"
"""


def test_a_stop_that_the_guard_cannot_see_is_refused_or_told(
    tmp_path: Path, load_text: Callable[..., Config]
) -> None:
    path = tmp_path / "stop.toml"
    for bus in ("", 'backend = "gpiozero"'):
        path.write_text(STOP.format(bus=bus))
        assert not any("stops nothing" in w for w in load(path).warnings)
    path.write_text(STOP.format(bus='backend = "gpiozero"\npin_factory = "pigpio"'))
    with pytest.raises(ConfigError, match=r'while the agent hangs: .*or pin_factory = "lgpio"'):
        load(path)
    on_a_chip = DEVICES + '[safety]\nstop_device = "thermo"\nstop_point = "alert"\n'
    (told,) = [w for w in load_text(on_a_chip).warnings if "stops nothing" in w]
    assert (
        'devices.thermo stops nothing while the agent hangs: the guard cannot watch a bus of kind "i2c"'
        in told
    )
