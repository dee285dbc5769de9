"""I2C through the kernel's character device: a plain adapter with faults, and one that has SMBus only."""

import asyncio
import errno
import os
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from device_agent.bus.config import I2cBusConfig
from device_agent.bus.core import Bus
from device_agent.bus.i2c_linux import LinuxI2c
from device_agent.errors import BusError, BusGone, BusHeld, BusTimeout, ChipReset, NoAnswer, WrongChip
from device_agent_drivers.bme280 import Bme280, Bme280Config
from support.virtual_hardware import LIMIT_S, Rig, as_nobody, until


def handle_for(kind) -> LinuxI2c:
    return LinuxI2c("i2c", I2cBusConfig(kind="i2c", device=f"/dev/i2c-{kind.bus}"))


@pytest.fixture
def i2c(rig: Rig) -> Iterator[LinuxI2c]:
    """Plain I2C, a BME280 at 0x76."""
    rig.make_bme280(rig.i2c)
    rig.i2c.present(0x76)
    rig.i2c.fault_off()
    i2c = handle_for(rig.i2c)
    i2c.open()
    yield i2c
    i2c.close()
    rig.i2c.fault_off()


@pytest.fixture
def smbus(rig: Rig) -> Iterator[LinuxI2c]:
    rig.make_bme280(rig.smbus)
    smbus = handle_for(rig.smbus)
    smbus.open()
    yield smbus
    smbus.close()


def test_an_adapter_is_found_by_its_name(rig):
    i2c = LinuxI2c("i2c", I2cBusConfig(kind="i2c", device="SMBus stub driver"))
    i2c.open()
    assert i2c.path == f"/dev/i2c-{rig.smbus.bus}"
    i2c.close()
    with pytest.raises(BusGone, match=r"no I2C adapter is named 'no such'; there are .*SMBus stub driver"):
        LinuxI2c("i2c", I2cBusConfig(kind="i2c", device="no such")).open()


def test_transfers_of_any_length(rig, i2c):
    data = bytes(range(100))
    i2c.write(0x76, 0x00, data)
    assert rig.i2c.get(0x76, 0x00, 100) == data
    assert i2c.read(0x76, 0x00, 100) == data
    assert i2c.transfer(0x76, b"\x05") == b""
    assert i2c.transfer(0x76, b"", 3) == b"\x05\x06\x07"
    assert i2c.read_u16(0x76, 0x01) == 0x0102


def test_smbus_carries_what_it_can(rig, smbus):
    data = bytes(range(70))
    smbus.write(0x76, 0x10, data)
    assert smbus.read(0x76, 0x10, 70) == data
    assert rig.smbus.get(0x76, 0x10, 70) == data
    smbus.write_u8(0x76, 0x10, 0xAA)
    smbus.write_u16(0x76, 0x20, 0xBEEF)
    assert smbus.read_u8(0x76, 0x10) == 0xAA
    assert smbus.read_u16(0x76, 0x20) == 0xBEEF
    with pytest.raises(BusError, match="speaks SMBus only and cannot write 2 bytes and read 3"):
        smbus.transfer(0x76, b"\x00\x01", 3)
    with pytest.raises(BusError, match="past 0xff"):
        smbus.read(0x76, 0xF0, 40)


@pytest.mark.parametrize("kind", ["i2c", "smbus"])
def test_an_absent_chip_is_no_answer_and_no_reopening(rig, request, kind):
    handle = request.getfixturevalue(kind)
    assert handle.present(0x76)
    assert not handle.present(0x11)
    assert not handle.present(0x50)  # asked by reading: it could be an EEPROM
    for _ in range(3):
        with pytest.raises(NoAnswer, match=r"address 0x11: no answer; check wiring"):
            handle.read_u8(0x11, 0xD0)
    assert handle.read_u8(0x76, 0xD0) == 0x60


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.EREMOTEIO, NoAnswer),
        (errno.ENXIO, NoAnswer),
        (errno.EIO, NoAnswer),
        (errno.ETIMEDOUT, BusTimeout),
        (errno.EAGAIN, BusError),
        (errno.EPROTO, BusError),
        (errno.EBUSY, BusHeld),
        (errno.ENODEV, NoAnswer),
    ],
)
def test_what_the_adapter_reports(rig, i2c, number, expected):
    rig.i2c.fault(0x76, number, -1)
    with pytest.raises(BusError) as caught:
        i2c.read_u8(0x76, 0xD0)
    assert type(caught.value) is expected
    assert "0x76" in str(caught.value)
    rig.i2c.fault_off()
    assert i2c.read_u8(0x76, 0xD0) == 0x60


def test_one_lost_arbitration_is_repeated(rig, i2c):
    rig.i2c.fault(0x76, errno.EAGAIN, 1)
    assert i2c.read_u8(0x76, 0xD0) == 0x60


def test_an_address_of_a_kernel_driver_names_it(rig, i2c):
    devices = f"/sys/bus/i2c/devices/i2c-{rig.i2c.bus}/"
    with open(devices + "new_device", "w") as file:
        file.write("bme280 0x76\n")
    try:
        subprocess.run(["modprobe", "-q", "bmp280-i2c"], check=True)
        until(lambda: os.path.exists(f"/sys/bus/i2c/devices/{rig.i2c.bus}-0076/driver"), "kernel driver")
        for use in (lambda: i2c.read_u8(0x76, 0xD0), lambda: i2c.write_u8(0x76, 0xF4, 0)):
            with pytest.raises(BusHeld, match="kernel driver 'bmp280' owns this address"):
                use()
        assert i2c.present(0x76)
    finally:
        with open(devices + "delete_device", "w") as file:
            file.write("0x76\n")
    assert i2c.read_u8(0x76, 0xD0) == 0x60


def test_a_removed_adapter_is_gone_and_comes_back(rig, i2c):
    node = i2c.path
    rig.i2c.fault(0x76, errno.ENODEV, -1)  # what a real USB adapter answers once it is gone
    leaving = rig.i2c.unplug(wait=False)
    until(lambda: not os.path.exists(node), "removal")
    with pytest.raises(BusGone, match="the adapter is gone"):
        i2c.read_u8(0x76, 0xD0)
    with pytest.raises(BusGone):
        i2c.open()
    leaving.join(LIMIT_S)
    assert not leaving.is_alive()  # nothing of ours held it back
    with pytest.raises(BusGone, match="is not open"):
        i2c.read_u8(0x76, 0xD0)
    rig.i2c.plug()
    rig.i2c.fault_off()
    i2c.open()
    assert i2c.path == node
    assert i2c.read_u8(0x76, 0xD0) == 0x60


def test_the_adapters_driver_is_taken_off_and_put_back(rig, i2c):
    node = i2c.path
    i2c.close()
    i2c.detach()
    assert not os.path.exists(node)
    with pytest.raises(BusGone):
        i2c.open()
    i2c.attach()
    i2c.open()
    rig.make_bme280(rig.i2c)
    rig.i2c.present(0x76)
    assert i2c.read_u8(0x76, 0xD0) == 0x60


def test_who_holds_the_adapter_is_said_instead_of_waiting(i2c):
    i2c.close()
    with open(i2c.path) as node:
        holder = subprocess.Popen(["sleep", "60"], stdin=node)
    try:
        with pytest.raises(BusHeld, match=f"open by sleep .process {holder.pid}."):
            i2c.detach()
    finally:
        holder.kill()
        holder.wait()
    assert os.path.exists(i2c.path)


def test_taking_it_off_without_the_right_says_what_is_missing(rig):
    printed = as_nobody(f"""
from device_agent.bus.config import I2cBusConfig
from device_agent.bus.i2c_linux import LinuxI2c
i2c = LinuxI2c("i2c", I2cBusConfig(kind="i2c", device="/dev/i2c-{rig.i2c.bus}"))
try:
    i2c.detach()
except Exception as error:
    print(type(error).__name__, error)
""")
    assert "BusDenied" in printed, printed
    assert "udev rule" in printed
    assert os.path.exists(f"/dev/i2c-{rig.i2c.bus}")


def test_permission_names_the_group(rig):
    printed = as_nobody(f"""
from device_agent.bus.config import I2cBusConfig
from device_agent.bus.i2c_linux import LinuxI2c
try:
    LinuxI2c("i2c", I2cBusConfig(kind="i2c", device="/dev/i2c-{rig.i2c.bus}")).open()
except Exception as error:
    print(type(error).__name__, error)
""")
    assert "BusDenied" in printed, printed
    assert "add the user to its group" in printed


def test_opening_and_failing_leaks_nothing(rig, i2c):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        i2c.open()
        with pytest.raises(NoAnswer):
            i2c.read_u8(0x11, 0)
        with pytest.raises(BusError):
            LinuxI2c("no", I2cBusConfig(kind="i2c", device="/dev/null")).open()
    assert len(os.listdir("/proc/self/fd")) <= before


# --- a BME280 on it --------------------------------------------------------------------------------------


def measured(driver: Bme280) -> dict:
    driver.trigger()
    time.sleep(driver.settle_s)
    return dict(driver.read())


@pytest.mark.parametrize("kind", ["i2c", "smbus"])
def test_bme280(rig, request, kind):
    handle = request.getfixturevalue(kind)
    driver = Bme280(Bme280Config(), handle)
    driver.open()
    values = measured(driver)
    assert values["temperature"] == pytest.approx(25.08, abs=0.005)
    assert values["pressure"] == pytest.approx(1006.53, abs=0.01)
    assert 0 < values["humidity"] < 100


def test_bme280_in_trouble(rig, i2c):
    driver = Bme280(Bme280Config(), i2c)
    driver.open()
    rig.i2c.present(0x76, False)
    with pytest.raises(NoAnswer):
        driver.trigger()
    rig.i2c.present(0x76)
    assert measured(driver)["temperature"] == pytest.approx(25.08, abs=0.005)
    rig.i2c.set(0x76, 0xF2, bytes(4))  # a brown-out clears the settings
    with pytest.raises(ChipReset):
        driver.trigger()
    driver.open()
    assert measured(driver)["temperature"] == pytest.approx(25.08, abs=0.005)
    rig.make_bme280(rig.i2c, chip_id=0x58)
    with pytest.raises(WrongChip, match=r"0x58 .* BMP280"):
        driver.open()


async def test_a_wedged_bus_frees_its_thread(rig):
    rig.make_bme280(rig.i2c)
    rig.i2c.present(0x76)
    bus = Bus("i2c", handle_for(rig.i2c))
    await bus.open()
    try:
        driver = Bme280(Bme280Config(), bus.handle)
        await bus.run(driver.open, LIMIT_S)
        rig.i2c.fault(0x76, errno.ETIMEDOUT, -1, 200_000)
        with pytest.raises(BusTimeout, match="SDA or SCL"):
            await bus.run(driver.trigger, LIMIT_S)
        assert not bus.stuck
        rig.i2c.fault(0x76, 0, 1, 2_000_000)  # one transfer that takes 2 s, past the job's limit
        with pytest.raises(BusTimeout, match="took longer than"):
            await bus.run(lambda: bus.handle.read_u8(0x76, 0xD0), 0.2)
        assert bus.stuck
        await asyncio.to_thread(until, lambda: not bus.stuck, "end of the long transfer")
        rig.i2c.fault_off()
        assert await bus.run(lambda: bus.handle.read_u8(0x76, 0xD0), LIMIT_S) == 0x60
    finally:
        rig.i2c.fault_off()
        await bus.close()
        bus.stop()
        await asyncio.to_thread(
            until, lambda: all(t.name != "bus-i2c" for t in threading.enumerate()), "end of the thread"
        )
