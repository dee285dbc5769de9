"""Cross checks: buses, claims, safe values, calibration, streams, access. Each names both sides."""

import pytest

from device_agent.config import load
from device_agent.errors import ConfigError
from support.config_texts import CONSOLE, I2C, PINS, PORT, THERMO, device, relay


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            I2C + device("t", "thermo"),
            'devices.t.bus is missing: driver "thermo" needs one of kind "i2c"; add one of i',
        ),
        (I2C + device("t", "thermo", bus='"ii"'), 'devices.t.bus = "ii" is not declared: did you mean "i"?'),
        (
            device("t", "thermo", bus='"x"'),
            'devices.t.bus = "x" is not declared: add [buses.NAME] with kind = "i2c"',
        ),
        (
            PINS + device("t", "thermo", bus='"p"'),
            'devices.t.bus = "p" is of kind "gpio", but driver "thermo" needs "i2c": name [buses.NAME] with '
            'kind = "i2c"',
        ),
        (
            I2C + device("b", "board", bus='"i"'),
            'devices.b.bus = "i": driver "board" needs no bus; remove the key',
        ),
    ],
)
def test_a_device_sits_on_its_kind_of_bus(problems, text, sentence):
    assert problems(text) == (sentence,)


def test_what_was_recorded_is_one_devices(problems):
    two = I2C + device("t", "thermo", bus='"i"', formerly='["old"]')
    assert problems(two + device("old", "thermo", bus='"i"', address="0x49")) == (
        'devices.t.formerly names "old", which is a device of its own: remove it',
    )
    assert problems(two + device("u", "thermo", bus='"i"', address="0x49", formerly='["old"]')) == (
        'devices.u.formerly names "old", as devices.t does: its history can be one device\'s',
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            I2C + device("t", "thermo", bus='"i"') + device("u", "thermo", bus='"i"'),
            "devices.u and devices.t both use address 0x48 of bus i: give one another",
        ),
        (
            PINS + relay("a") + relay("b"),
            "devices.b and devices.a both use line 4 of bus p: give one another",
        ),
        (
            PINS + relay("a") + relay("b", line='"GPIO4"'),
            "devices.b and devices.a both use line 4 of bus p: give one another",
        ),
        (
            PORT + device("a", "console", bus='"s"') + device("b", "meter", bus='"s"'),
            "devices.a and devices.b share the port of bus s: a port belongs to one device; "
            "remove the others",
        ),
        (
            I2C + '[buses.j]\nkind = "i2c"\ndevice = "/dev/../dev/i2c-1"\n',
            "buses.j and buses.i are both i2c-1: keep one and name it in all devices",
        ),
        (
            PORT + PORT.replace("buses.s", "buses.z"),
            "buses.z and buses.s are both /dev/ttyUSB0: keep one and name it in all devices",
        ),
        (
            '[buses.a]\nkind = "serial"\nport = { vid = 1, pid = 2 }\n'
            '[buses.b]\nkind = "serial"\nport = { vid = 1, pid = 2 }\n',
            "buses.b and buses.a are both USB 0001:0002: keep one and name it in all devices",
        ),
        (
            PINS + PINS.replace("buses.p", "buses.q"),
            "buses.q and buses.p are both pinctrl-bcm2835: keep one and name it in all devices",
        ),
    ],
)
def test_one_owner_each(problems, text, sentence):
    assert problems(text) == (sentence,)


@pytest.mark.parametrize(
    "text",
    [
        PORT + device("a", "meter", bus='"s"', address=1) + device("b", "meter", bus='"s"', address=2),
        PINS.replace("pinctrl-bcm2835", "gpiochip1") + relay("a") + relay("b", line='"GPIO4"'),
        I2C
        + I2C.replace("buses.i", "buses.j").replace("i2c-1", "i2c-2")
        + device("t", "thermo", bus='"i"')
        + device("u", "thermo", bus='"j"'),
        '[buses.a]\nkind = "mqtt"\nhost = "h"\n[buses.b]\nkind = "mqtt"\nhost = "h"\n',
    ],
    ids=["units", "another chip's names", "another adapter", "two connections to a broker"],
)
def test_what_may_be_shared(problems, text):
    assert problems(text) == ()


FAN = I2C + device("f", "fan", bus='"i"')


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        (
            PINS + device("r", "relay", bus='"p"', line=4),
            ["devices.r.safe is missing: add it. What each point is set to when in doubt."],
        ),
        (
            PINS + relay("r", safe="1"),
            ["devices.r.safe = 1 must be true or false, as point on takes no other"],
        ),
        (
            FAN + "safe = { speed = 101, steps = 1.5, label = 3, sped = 1 }\n",
            [
                "devices.f.safe.speed = 101 must be at most 100, as point speed takes no other",
                "devices.f.safe.steps = 1.5 must be a whole number, as point steps takes no other",
                "devices.f.safe.label = 3 must be text in quotes, as point label takes no other",
                'devices.f.safe.sped is not such a point of this device: did you mean "speed"?',
            ],
        ),
        (
            FAN + "safe = { speed = 0, label = '' }\n",
            ["devices.f.safe.steps is missing: everything that moves needs a safe value; add it"],
        ),
        (
            device("o", "odd", how='"write"', names='["x"]'),
            ['devices.o: driver "odd" has writable points but is no Actuator: tell its author'],
        ),
        (PINS + relay("r", max_on_s=-1), ["devices.r.max_on_s = -1 must be more than 0"]),
        (
            PINS + relay("r", interlock='["A", "b", "b"]'),
            [
                'devices.r.interlock.0 = "A" is no name of a group: use lower-case letters, digits and _',
                'devices.r.interlock.2 = "b" is named twice: remove one',
            ],
        ),
    ],
)
def test_everything_that_moves_has_a_safe_value(problems, text, sentences):
    assert problems(text) == tuple(sentences)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            "scale = { temprature = 2 }",
            '.scale.temprature is not such a point of this device: did you mean "temperature"?',
        ),
        ("scale = { alert = 2 }", ".scale.alert is not such a point of this device: use temperature, count"),
        ("scale = { temperature = 0 }", ".scale.temperature = 0 makes every value 0: write another factor"),
        ("offset = { count = 1e13 }", ".offset.count = 1e+13 must be between -1e+12 and 1e+12"),
        ("dead_band = -1", ".dead_band = -1 must be at least 0"),
        ("dead_band = { count = -2 }", ".dead_band.count = -2 must be at least 0"),
        ("every_s = 0", ".every_s = 0 must be at least 0.01"),
        (
            "calibration = { alert = [[0, 0], [1, 1]] }",
            ".calibration.alert is not such a point of this device: use temperature, count",
        ),
        (
            "calibration = { temperature = [[5, 0], [1, 1]] }",
            ".calibration.temperature: the first numbers of its pairs must rise: put the pairs in order, "
            "each once",
        ),
        (
            "scale = { count = 2 }\ncalibration = { count = [[0, 0], [1, 1]] }",
            ".calibration.count stands beside `scale` or `offset` of that point: keep the one or the other",
        ),
        (
            'unit = { alert = "V" }',
            ".unit.alert is not such a point of this device: use temperature, count",
        ),
        ('unit = { temperature = "°C" }', '.unit.temperature = "°C" is no UCUM code: write "Cel"'),
        (
            'description = { level = "x" }',
            ".description.level is not such a point of this device: use temperature, alert, count",
        ),
        (
            "frozen_after_s = { alert = 60 }",
            ".frozen_after_s.alert is not such a point of this device: use temperature, count",
        ),
        ("frozen_after_s = -1", ".frozen_after_s = -1 must be at least 0 or must be a table"),
        (
            "stale_after_s = 60",
            '.stale_after_s: driver "thermo" is asked for each reading, so none is old: remove it',
        ),
    ],
)
def test_calibration_is_by_point(problems, options, sentence):
    assert problems(f"{THERMO}{options}\n") == (f"devices.t{sentence}",)


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ('["Big"]', 'devices.o: "Big" is no name of a point: use lower-case letters, digits and _'),
        ('["a", "a"]', 'devices.o has two points "a": name each once'),
        (
            str([f"p{n}" for n in range(129)]).replace("'", '"'),
            "devices.o has 129 points: at most 128 are allowed",
        ),
    ],
)
def test_points_have_names(problems, names, sentence):
    assert problems(device("o", "odd", names=names)) == (sentence,)


@pytest.mark.parametrize("how", ["model", "points"])
def test_a_driver_that_fails_names_itself_and_hides_nothing(problems, how):
    found = problems(device("o", "odd", how=f'"{how}"') + "[outbox]\nmax_bytes = 1\n")
    assert [one for one in found if one.startswith('devices.o: driver "odd" failed on this table (')]
    assert "outbox.max_bytes = 1 B must be at least 256 kB" in found


def stream(name: str, devices: str, **options: str) -> str:
    lines = {"direction": '"outbound"', **options}
    return "\n".join(
        (f"[streams.{name}]", f"devices = {devices}", *(f"{k} = {v}" for k, v in lines.items()), "")
    )


BYTES = {"format": '"bytes"'}
BOTH = {"direction": '"bidirectional"'}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (THERMO + stream("x", '["tt"]'), 'streams.x.devices.0 = "tt" is not a device: did you mean "t"?'),
        (THERMO + stream("x", '["zzz"]'), 'streams.x.devices.0 = "zzz" is not a device: devices are t'),
        (THERMO + stream("x", '["t", "t"]'), 'streams.x.devices.1 = "t" is named twice: remove one'),
        (THERMO + stream("x", "[]"), "streams.x.devices = [] is too short: at least 1"),
        (
            THERMO + stream("x", '["t"]', **BOTH),
            'streams.x.direction = "bidirectional" but none of its devices can be driven: write "outbound", '
            "or add a device with a writable point",
        ),
        (
            THERMO + stream("_default", '["t"]', affinity='"shared"'),
            'streams._default.affinity = "shared" is not allowed by the network: write "dedicated"',
        ),
        (
            THERMO + stream("x", '["t"]', **BYTES),
            'streams.x.format = "bytes" but devices.t (driver "thermo") has no bytes side: write "events", '
            'or use driver = "serial-bytes"',
        ),
        (
            CONSOLE + device("b", "board") + stream("x", '["c", "c"]', **BYTES),
            "streams.x.devices has 2 devices: a stream of bytes carries exactly one",
        ),
        (
            CONSOLE + stream("x", '["c"]', overflow='"thin"', **BYTES),
            'streams.x.overflow = "thin" has no meaning for bytes: write "drop-oldest" or "refuse"',
        ),
        (
            CONSOLE + stream("x", '["c"]'),
            'streams.x.devices.0 = "c" has no points for events: use a stream with format = "bytes"',
        ),
        (
            THERMO + stream("x", '["t"]', link_loss_grace_s="-1"),
            "streams.x.link_loss_grace_s = -1 must be at least 0",
        ),
        (
            THERMO + stream("x", '["t"]', caller_silence_s="30"),
            "streams.x.caller_silence_s = 30 is for streams on which callers speak: remove it, or write "
            'direction = "bidirectional"',
        ),
        (
            '[agent]\nname = "a"\ntask_kinds = ["request"]\n' + THERMO + stream("x", '["t"]'),
            'streams.x needs pipe tasks: add "pipe" to agent.task_kinds, or remove the stream',
        ),
        (
            '[agent]\nname = "a"\ninstances = 2\n' + THERMO + stream("x", '["t"]', affinity='"shared"'),
            'streams.x.affinity = "shared" has one writer, and agent.instances = 2 devices would write to '
            'it: write "dedicated"',
        ),
        (
            '[agent]\nname = "a"\ninstances = 0\n' + THERMO + stream("x", '["t"]'),
            "agent.instances = 0 sends each task to every device, and a session has one: write "
            'agent.task_kinds = ["request"], or how many devices there are',
        ),
    ],
)
def test_streams(problems, text, sentence):
    assert sentence in problems(text)


@pytest.mark.parametrize(
    "text",
    [
        THERMO + stream("_default", '["t"]'),
        CONSOLE + stream("x", '["c"]', **BYTES, **BOTH),
        PINS + relay("r") + THERMO + stream("x", '["t", "r"]', **BOTH),
        PINS + relay("r") + stream("x", '["r"]', direction='"inbound"'),
    ],
)
def test_streams_that_are_right(problems, text):
    assert problems(text) == ()


def test_a_stream_of_a_broken_device_is_not_blamed(problems):
    found = problems(device("x", "nope") + stream("s", '["x"]', **BOTH))
    assert len(found) == 1
    assert found[0].startswith('devices.x.driver "nope"')


def test_a_stream_s_channel_fits_the_network(problems):
    name, agent = "s" * 40, "a" * 52
    (sentence,) = problems(f'[agent]\nname = "{agent}"\n' + THERMO + stream(name, '["t"]'))
    assert sentence.endswith("has 100 bytes and the network takes 92: shorten the name")


def test_the_socket_s_path_fits(problems):
    (sentence,) = problems(f'[state]\nruntime_directory = "/{"d" * 100}"\n')
    assert sentence.endswith("is too long for a socket: use at most 94 bytes")


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            THERMO + stream("x", '["t"]', affinity='"shared"'),
            "the card declares request tasks beside the shared stream x, which a request never opens: set "
            'agent.task_kinds = ["pipe"], or make the stream dedicated',
        ),
        (I2C + device("b", "board"), "buses.i has no device: remove it, or name it in one"),
        ("", "there is no device: the agent has nothing to read; add [devices.NAME]"),
        (
            device("b", "board"),
            'there is no stream for pipe tasks: add [streams.NAME], or set agent.task_kinds = ["request"]',
        ),
        (
            PINS + relay("r") + stream("x", '["r"]', **BOTH),
            "devices.r can be driven by nobody: name callers in access.drive",
        ),
        (
            PINS + relay("r", interlock='["g"]'),
            'devices.r.interlock names "g", which no other device does: it locks nothing',
        ),
        (
            PINS + relay("r") + stream("x", '["r"]', affinity='"shared"', **BOTH),
            "streams.x is shared and takes commands: nobody can tell which caller sent one; set "
            'affinity = "dedicated"',
        ),
        (CONSOLE, 'devices.c is in no stream: add one with format = "bytes"'),
    ],
)
def test_warnings(load_text, text, warning):
    assert warning in load_text('[agent]\nname = "a"\n' + text).warnings


def test_a_configuration_without_a_fault_has_no_warning(load_text):
    text = '[agent]\nname = "a"\ntask_kinds = ["pipe"]\n' + THERMO + stream("x", '["t"]', affinity='"shared"')
    assert load_text(text).warnings == ()


@pytest.mark.parametrize(
    ("recovery", "words"),
    [
        ('power = { bus = "pin", line = 22 }', 'buses.i2c1.power.bus = "pin" is not declared: add'),
        ('power = { bus = "i2c2", line = 22 }', 'buses.i2c1.power.bus = "i2c2" is of kind "i2c": name one'),
        (
            'power = { bus = "pins", line = 3 }\nclear = { bus = "pins", scl = "GPIO3", sda = 2 }',
            "buses.i2c1.power.line and buses.i2c1.clear.scl both use line 3 of bus pins",
        ),
    ],
)
def test_the_lines_of_a_bus_recovery_are_checked(problems, recovery: str, words: str) -> None:
    found = problems(
        f'[buses.i2c1]\nkind = "i2c"\ndevice = "/dev/i2c-1"\n{recovery}\n'
        '[buses.i2c2]\nkind = "i2c"\ndevice = "/dev/i2c-2"\n'
        '[buses.pins]\nkind = "gpio"\nchip = "pinctrl-bcm2835"\n'
    )
    assert any(words in problem for problem in found), found


ADC = '[buses.i]\nkind = "i2c"\ndevice = "/dev/i2c-1"\n[devices.tank]\ndriver = "ads1115"\nbus = "i"\n'


@pytest.mark.parametrize(
    ("options", "warned"),
    [
        (
            "calibration.a0 = [[0.5, 0], [4.5, 12]]",
            "devices.tank.calibration.a0 multiplies by 3, and the unit is",
        ),
        ("scale.a1 = 11", 'still "V": write devices.tank.unit.a1 = "bar"'),
        ('calibration.a0 = [[0.5, 0], [4.5, 12]]\nunit.a0 = "bar"', ""),
        ('scale.a1 = 11\nunit.a1 = "V"', ""),
        ("scale.a0 = 1.02\noffset.a0 = 3\ncalibration.a1 = [[0, 0.1], [2, 2.05]]", ""),
    ],
)
def test_another_quantity_wants_its_unit(tmp_path, options, warned):
    path = tmp_path / "agent.toml"
    path.write_text(f'[agent]\nname = "x"\n[state]\ndirectory = "/x"\n{ADC}{options}\n')
    told = [one for one in load(path, environ={}).warnings if "multiplies" in one]
    assert len(told) == bool(warned)
    assert all(warned in one for one in told)


LINE = """
[buses.s]
kind = "serial"
port = "/dev/ttyUSB0"
baud = 1200
[buses.w]
kind = "w1"
"""
METER = """
[devices.{name}]
driver = "modbus-rtu"
bus = "s"
unit = {unit}
every_s = {every_s}
points.text = {{ address = 0, type = "string", length = 40 }}
"""


def test_a_bus_with_more_to_do_than_there_is_time_is_told(tmp_path):
    def told(*every_s):
        path = tmp_path / "agent.toml"
        meters = [METER.format(name=f"m{n}", unit=n + 1, every_s=s) for n, s in enumerate(every_s)]
        probe = '[devices.probe]\ndriver = "ds18b20"\nbus = "w"\nevery_s = 1\nresolution = 9\n'
        path.write_text(f'[agent]\nname = "x"\n[state]\ndirectory = "/x"\n{LINE}{probe}{"".join(meters)}')
        return [one for one in load(path, environ={}).warnings if "busy" in one]

    assert told(3) == told(5, 5) == []
    [sentence] = told(2, 2)
    assert sentence.startswith("buses.s is kept busy for 86% of the time (m0 0.86 s every 2 s, m1 0.86 s")


def test_a_unit_in_a_table_of_points_is_a_code_too(tmp_path):
    path = tmp_path / "agent.toml"
    port = '[buses.s]\nkind = "serial"\nport = "/dev/ttyUSB0"\n'
    meter = '[devices.m]\ndriver = "modbus-rtu"\nbus = "s"\npoints.energy = { address = 0, unit = "kWh" }\n'
    path.write_text(f'[agent]\nname = "x"\n[state]\ndirectory = "/x"\n{port}{meter}')
    with pytest.raises(ConfigError) as raised:
        load(path, environ={})
    assert raised.value.problems == ('devices.m.points.energy.unit = "kWh" is no UCUM code: write "kW.h"',)
