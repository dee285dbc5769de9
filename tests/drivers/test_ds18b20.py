"""DS18B20: the sheet's table, the 85 degree rule, and what the kernel says of sensors that are not there."""

import pytest

from device_agent.driver import BadReading, DriverError, Flag, Flagged, NoAnswer
from device_agent.errors import BusGone
from device_agent.testing import check_driver
from device_agent_drivers.checksums import crc8_maxim_dow
from device_agent_drivers.ds18b20 import Ds18b20, Ds18b20Config, scratchpad, temperature
from device_agent_drivers.simulated.ds18b20 import SimulatedDs18b20

ID = "28-0316a2794caf"
GOOD = "72 01 4b 46 7f ff 0e 10 57 : crc=57 YES\n72 01 4b 46 7f ff 0e 10 57 t=23125\n"


@pytest.mark.parametrize("options", [{}, {"id": ID, "resolution": 9}, {"id": "42-0000000000a1"}])
def test_contract(options):
    check_driver(Ds18b20, options)


def test_a_text_of_the_kernel():
    data = scratchpad(GOOD, ID)
    assert temperature(data) == 23.125
    assert crc8_maxim_dow(data) == 0


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (0x07D0, 125.0),
        (0x0550, 85.0),
        (0x0191, 25.0625),
        (0x00A2, 10.125),
        (0x0008, 0.5),
        (0x0000, 0.0),
        (0xFFF8, -0.5),
        (0xFF5E, -10.125),
        (0xFE6F, -25.0625),
        (0xFC90, -55.0),
    ],
)
def test_the_sheets_table(raw, expected):
    """Table 1."""
    assert temperature(raw.to_bytes(2, "little") + bytes.fromhex("4b467fff0c10")) == expected


@pytest.mark.parametrize(
    ("config", "expected"), [(0x7F, -10.0625), (0x5F, -10.125), (0x3F, -10.25), (0x1F, -10.5)]
)
def test_undefined_bits_do_not_count(config, expected):
    assert temperature(bytes((0x5F, 0xFF, 0, 0, config))) == expected


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (GOOD.replace("YES", "NO"), BadReading),
        (GOOD.replace("72 01", "73 01"), BadReading),  # the kernel says YES, the bytes do not
        ("", NoAnswer),
        ("\n", NoAnswer),
        ("00 " * 9 + ": crc=00 YES\n" + "00 " * 9 + "t=0\n", NoAnswer),
        ("ff " * 9 + ": crc=ff YES\n" + "ff " * 9 + "t=-62\n", NoAnswer),
        ("ff " * 9 + ": crc=c9 NO\n", NoAnswer),
        ("72 01 4b", BadReading),
        ("nonsense", BadReading),
    ],
)
def test_what_must_not_be_a_temperature(text, error):
    with pytest.raises(error, match=ID):
        scratchpad(text, ID)


@pytest.mark.parametrize("degrees", [-55.0, -12.3125, -0.0625, 0.0, 21.4375, 85.0625, 125.0])
def test_readings(bench, degrees):
    it = bench(Ds18b20, "w1", id=ID)
    it.board.set("it", temperature=degrees)
    it.driver.open()
    assert it.measure() == {"temperature": degrees}


@pytest.mark.parametrize("resolution", [9, 10, 11, 12])
def test_resolution(bench, resolution):
    it = bench(Ds18b20, "w1", id=ID, resolution=resolution)
    it.board.set("it", temperature=-7.4375)
    it.driver.open()
    began_s = it.clock.monotonic_s()
    value = it.measure()["temperature"]
    assert it.clock.monotonic_s() - began_s == pytest.approx(0.75 / 2 ** (12 - resolution))
    assert abs(value - -7.4375) < 2.0 ** (8 - resolution)
    assert value * 2 ** (resolution - 8) == int(value * 2 ** (resolution - 8))


def test_85_degrees_that_are_true(bench):
    it = bench(Ds18b20, "w1")
    it.board.set("it", temperature=85.0)
    it.driver.open()
    assert it.measure() == {"temperature": 85.0}


def test_85_degrees_that_were_no_conversion(bench):
    it = bench(Ds18b20, "w1")
    it.driver.open()
    it.board.chip("it").conversions_lost = 1
    assert it.measure() == {"temperature": 21.5}


def test_85_degrees_that_stay_without_a_conversion(bench):
    """As a sensor shows that loses its supply at every conversion: byte 6 tells it from a true 85."""
    it = bench(Ds18b20, "w1")
    it.driver.open()
    text = "50 05 4b 46 7f ff 0c 10 1c : crc=1c YES\n50 05 4b 46 7f ff 0c 10 1c t=85000\n"
    it.board.chip("it").read = lambda file: (text, 0.75)
    for _ in range(3):
        assert it.driver.read() == {"temperature": Flagged(None, Flag.POWER_ON_VALUE)}


def test_a_copy_whose_byte_6_tells_nothing_keeps_its_85_degrees_with_a_flag(bench):
    it = bench(Ds18b20, "w1")
    it.driver.open()
    warm = bytes.fromhex("4f 05 4b 46 7f ff 0c 10")  # 84.9375
    hot = bytes.fromhex("50 05 4b 46 7f ff 0c 10")
    texts = [
        f"{data.hex(' ')} {crc8_maxim_dow(data):02x} : crc={crc8_maxim_dow(data):02x} YES\n"
        for data in (warm, hot, hot)
    ]
    it.board.chip("it").read = lambda file: (texts.pop(0), 0.75)
    assert it.driver.read() == {"temperature": 84.9375}
    assert it.driver.read() == {"temperature": Flagged(85.0, Flag.POWER_ON_VALUE)}


@pytest.mark.parametrize(
    ("features", "said"), [("1", "without a conversion"), ("2", "did not answer"), (None, "did not answer")]
)
def test_an_empty_file_and_what_it_may_mean(bench, features, said):
    it = bench(Ds18b20, "w1")
    it.driver.open()
    files = {"w1_slave": "", "features": features}

    def read(file):
        if files[file] is None:
            raise FileNotFoundError(file)
        return files[file], 0.0

    it.board.chip("it").read = read
    with pytest.raises(NoAnswer, match=said):
        it.driver.read()


@pytest.mark.parametrize("second", ["", GOOD.replace("YES", "NO")])
def test_85_degrees_and_then_nothing(bench, second):
    it = bench(Ds18b20, "w1")
    it.driver.open()
    chip = it.board.chip("it")
    chip.conversions_lost = 1
    texts = [chip.read("w1_slave"), (second, 0.0)]
    chip.read = lambda file: texts.pop(0) if file == "w1_slave" else ("2", 0.0)
    assert it.driver.read() == {"temperature": Flagged(None, Flag.POWER_ON_VALUE)}


def test_faults(bench):
    it = bench(Ds18b20, "w1", id=ID)
    it.driver.open()
    for kind, error in (("nack", NoAnswer), ("corrupt", (BadReading, NoAnswer)), ("unplug", NoAnswer)):
        it.board.fault("w1", kind, device="it")
        with pytest.raises(error):
            it.driver.read()
        it.board.heal()
    assert it.measure() == {"temperature": 21.5}
    it.board.fault("w1", "unplug")
    with pytest.raises(BusGone):
        it.driver.read()


def test_the_folder_vanishes_during_the_conversion(bench):
    it = bench(Ds18b20, "w1", id=ID)
    it.driver.open()
    now_s = it.clock.monotonic_s()
    it.board.at(now_s + 0.3, lambda due_s: it.board.fault("w1", "unplug", device="it"))
    with pytest.raises(NoAnswer, match="no sensor 28-"):
        it.driver.read()


def test_the_only_sensor_and_the_right_one(bench):
    it = bench(Ds18b20, "w1")
    it.driver.open()
    assert it.measure() == {"temperature": 21.5}
    it.board.chip("it").device = "10-000802b5c2d4"  # a DS18S20, another scratchpad
    with pytest.raises(NoAnswer, match="10-000802b5c2d4"):
        it.driver.open()
    it = bench(Ds18b20, "w1", id="28-000000000009")
    it.board.chip("it").device = "28-000000000008"
    with pytest.raises(NoAnswer, match="there are: 28-000000000008"):
        it.driver.open()


def test_two_sensors_need_a_name(bench):
    it = bench(Ds18b20, "w1")
    it.driver.bus.devices = lambda: ("28-000000000001", "28-000000000002")
    with pytest.raises(DriverError, match="name one as `id`: 28-000000000001, 28-000000000002"):
        it.driver.open()


@pytest.mark.parametrize("wrong", ["000000000001", "28-01", "10-000802b5c2d4", "28-0316A2794CAF"])
def test_ids_are_checked(wrong):
    with pytest.raises(ValueError, match="id"):
        Ds18b20Config(id=wrong)


def test_the_simulated_checksum_is_another_way_of_reckoning():
    assert crc8_maxim_dow(SimulatedDs18b20().scratchpad()) == 0
