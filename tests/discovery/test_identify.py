"""Each driver knows its own chip and no other, on simulated registers, and changes nothing in it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from device_agent import registry
from device_agent.bus.config import I2cBusConfig
from device_agent.discovery import i2c
from device_agent.discovery.results import DetectedChip
from device_agent.discovery.scan import installed
from device_agent.errors import BusError, BusTimeout
from device_agent.testing import Board, RegisterChip, open_handle

DRIVERS = {name: driver for name, driver in installed()[0].items() if driver.Bus.kind == "i2c"}
PLACES = {name: i2c.accepted(driver) for name, driver in DRIVERS.items()}
BUS = I2cBusConfig(kind="i2c", device="/dev/i2c-1")
SHUNT = {"shunt_ohms": 0.1, "max_current_a": 0.5}
OPTIONS: dict[str, dict[str, Any]] = {
    "ina219": SHUNT,
    "ina226": SHUNT,
    "mcp23017": {"outputs": ["a0"], "safe": False},
    "pca9685": {"safe": 0},
    "pcf8574": {"outputs": ["p0"], "safe": False},
}

SURE = {
    "bme280": "BME280, chip id 0x60",
    "bmp280": "BMP280, chip id 0x58",
    "ds3231": "DS3231, by its registers",
    "ina226": "INA226, die id 0x2260",
    "mpu6050": "MPU-6050, WHO_AM_I 0x68",
    "pca9685": "PCA9685, group addresses e2 e4 e8 e0",
    "sht3x": "SHT3x, status 0x",
    "sht4x": "SHT4x, serial number ",
    "tmp117": "TMP117, device id 0x",
    "vl53l0x": "VL53L0X, model id ee aa",
}
MAYBE = ("ads1115", "bh1750", "ina219", "mcp23017", "pcf8574", "ssd1306")


@pytest.fixture
def bus_with() -> Iterator[Callable[..., Any]]:
    opened: list[Any] = []

    def make(driver: Any, **options: Any) -> tuple[Any, Any, int]:
        config = driver.Config.model_validate({"bus": "i2c1", **options})
        board = Board({"i2c1": BUS}, {"it": (driver, config)})
        bus = open_handle("i2c1", BUS, board=board)
        bus.open()
        opened.extend((bus, board))
        return bus, board, config.address

    yield make
    for one in opened:
        one.close()


@pytest.mark.parametrize("name", SURE)
def test_a_chip_with_an_identity_is_known_among_all_drivers(name: str, bus_with: Callable[..., Any]) -> None:
    bus, _, address = bus_with(DRIVERS[name], **OPTIONS.get(name, {}))
    found = i2c.chip_at(bus, address, DRIVERS, PLACES)
    assert (found.state, found.driver) == ("identified", name)
    assert found.what.startswith(SURE[name])


@pytest.mark.parametrize("name", MAYBE)
def test_a_chip_without_one_stays_a_candidate(name: str, bus_with: Callable[..., Any]) -> None:
    bus, _, address = bus_with(DRIVERS[name], **OPTIONS.get(name, {}))
    found = i2c.chip_at(bus, address, DRIVERS, PLACES)
    assert found.state == "candidate"
    assert name in found.candidates


@pytest.mark.parametrize("name", [*SURE, *MAYBE])
def test_asking_changes_no_register(name: str, bus_with: Callable[..., Any]) -> None:
    bus, board, address = bus_with(DRIVERS[name], **OPTIONS.get(name, {}))
    chip = board.media["i2c1"].placed["it"].chip
    i2c.chip_at(bus, address, DRIVERS, PLACES)
    if isinstance(chip, RegisterChip):
        assert not chip.written


def test_every_bundled_i2c_driver_is_in_one_of_the_lists() -> None:
    ours = {name for name in DRIVERS if registry.origin(name).startswith("device-agent ")}
    assert ours - {"i2c-registers"} == {*SURE, *MAYBE}


def test_a_bmp280_is_not_taken_for_a_bme280(bus_with: Callable[..., Any]) -> None:
    bus, _, _ = bus_with(DRIVERS["bmp280"])
    assert i2c.ask(DRIVERS["bme280"].identify, bus, 0x76) is None


def test_nothing_is_written_where_a_chip_obeys_any_byte(bus_with: Callable[..., Any]) -> None:
    bus, board, _ = bus_with(DRIVERS["pcf8574"], outputs=["p0"], inputs=["p1"], safe=False)
    before = board.media["i2c1"].placed["it"].chip.outputs()
    found = i2c.chip_at(bus, 0x20, DRIVERS, PLACES)
    assert found == DetectedChip(
        0x20, "candidate", what="pcf8574 would obey any byte: not asked", candidates=("mcp23017", "pcf8574")
    )
    assert board.media["i2c1"].placed["it"].chip.outputs() == before


def test_a_stranger_is_unknown(bus_with: Callable[..., Any]) -> None:
    from device_agent.driver import DriverConfig, I2cBus, Sensor

    class StrangeConfig(DriverConfig):
        address: int = 0x76

    class Strange(Sensor[StrangeConfig, I2cBus]):
        simulator = lambda config: RegisterChip({0xD0: b"\x42"})  # noqa: E731

    bus, _, _ = bus_with(Strange)
    found = i2c.chip_at(bus, 0x76, DRIVERS, PLACES)
    assert (found.state, found.driver) == ("candidate", "")
    assert found.candidates == ("pca9685",)  # from 0x70 on it is not asked: a multiplexer would switch


def test_addresses_are_those_of_the_models() -> None:
    assert PLACES["bme280"] == {0x76, 0x77}
    assert PLACES["pcf8574"] == {*range(0x20, 0x28), *range(0x38, 0x40)}
    assert PLACES["vl53l0x"] == {0x29}
    assert PLACES["i2c-registers"] == set()


def test_a_driver_that_fails_ends_nothing(bus_with: Callable[..., Any]) -> None:
    def broken(bus: Any, place: Any) -> str:
        raise RuntimeError("somebody else's mistake")

    def too_much(bus: Any, place: Any) -> str:
        raise BusError("this adapter speaks SMBus only")

    def stuck(bus: Any, place: Any) -> str:
        raise BusTimeout("stuck")

    assert i2c.ask(broken, None, 0x76) == i2c.ask(too_much, None, 0x76) == ""
    with pytest.raises(BusTimeout):
        i2c.ask(stuck, None, 0x76)
