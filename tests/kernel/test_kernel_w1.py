"""A DS18B20 behind the kernel's own w1_therm: what it says of good, garbled, silent and returning sensors."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from device_agent.bus.config import OneWireBusConfig
from device_agent.bus.factory import make_handle
from device_agent.driver import BadReading, Flagged, NoAnswer
from device_agent_drivers.ds18b20 import Ds18b20, Ds18b20Config
from support.virtual_hardware import Rig, until

FOLDER = Path("/sys/bus/w1/devices")


@pytest.fixture
def thermometer(rig: Rig) -> Iterator[Ds18b20]:
    if not list(FOLDER.glob("28-*")):
        pytest.skip("the virtual hardware has no 1-Wire sensor on this kernel")
    rig.thermometer(millideg=21500, badcrc=0, gone=0)
    bus = make_handle("w1", OneWireBusConfig(kind="w1"))
    bus.open()
    driver = Ds18b20(Ds18b20Config(bus="w1"), bus)  # type: ignore[arg-type]
    driver.open()
    yield driver
    rig.thermometer(millideg=21500, badcrc=0, gone=0)
    driver.close()
    bus.close()


@pytest.mark.parametrize("millideg", [21500, 0, -5125, -55000, 124937, 85000])
def test_temperatures(rig, thermometer, millideg):
    # Byte 6 of this thermometer never changes, as that of some copies of the chip: 85 may be true, or not.
    assert not isinstance(thermometer.read()["temperature"], Flagged)
    rig.thermometer(millideg=millideg)
    told = thermometer.read()["temperature"]
    assert isinstance(told, Flagged) is (millideg == 85000)
    value = told.value if isinstance(told, Flagged) else told
    assert value == pytest.approx(millideg / 1000, abs=0.0626)  # the rig rounds down


@pytest.mark.parametrize(("resolution", "expected"), [(9, -5.5), (11, -5.125), (12, -5.0625)])
def test_resolution(rig, thermometer, resolution, expected):
    rig.thermometer(millideg=-5063)
    driver = Ds18b20(Ds18b20Config(bus="w1", resolution=resolution), thermometer.bus)
    driver.open()
    assert driver.read() == {"temperature": expected}


@pytest.mark.parametrize("fault", ["badcrc", "gone"])
def test_a_garbled_or_silent_sensor_and_its_return(rig, thermometer, fault):
    rig.thermometer(**{fault: 1})
    with pytest.raises((NoAnswer, BadReading)):
        thermometer.read()
    rig.thermometer(**{fault: 0})

    def answers() -> bool:
        try:
            return thermometer.read() == {"temperature": 21.5}
        except (NoAnswer, BadReading):
            return False

    until(answers, "return of the sensor")


def test_a_sensor_that_is_not_there(thermometer):
    with pytest.raises(NoAnswer, match="28-0000000000ff"):
        thermometer.bus.read("28-0000000000ff", "w1_slave")
