"""SPI and 1-Wire on the kernel's files: errors by their words, folders that vanish, structures by size."""

import errno
import os
from pathlib import Path

import pytest

from device_agent.bus.config import OneWireBusConfig, SpiBusConfig
from device_agent.bus.factory import make_handle
from device_agent.bus.onewire_sysfs import SysfsOneWire
from device_agent.bus.spi_linux import _TRANSFER, LinuxSpi
from device_agent.errors import BusDenied, BusError, BusGone, NoAnswer, PlaceRefused

ID = "28-0316a2794caf"


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    for name in ("w1_bus_master1", ID, "10-000802b5c2d4"):
        (tmp_path / "devices" / name).mkdir(parents=True)
    (tmp_path / "devices" / ID / "w1_slave").write_text("text of the kernel\n")
    return tmp_path / "devices"


@pytest.fixture
def onewire(kernel: Path) -> SysfsOneWire:
    handle = make_handle("w1", OneWireBusConfig(kind="w1", directory=str(kernel)))
    assert isinstance(handle, SysfsOneWire)
    handle.open()
    return handle


def test_sensors_and_their_files(onewire, kernel):
    assert onewire.devices() == ("10-000802b5c2d4", ID)
    assert onewire.read(ID, "w1_slave") == "text of the kernel\n"
    onewire.write(ID, "resolution", "9")
    assert (kernel / ID / "resolution").read_text() == "9"


def test_an_empty_file_is_empty(onewire, kernel):
    (kernel / ID / "w1_slave").write_text("")
    assert onewire.read(ID, "w1_slave") == ""


def test_a_sensor_that_left(onewire, kernel):
    (kernel / ID / "w1_slave").unlink()
    (kernel / ID).rmdir()
    with pytest.raises(NoAnswer, match=ID):
        onewire.read(ID, "w1_slave")
    assert ID not in onewire.devices()


def test_the_whole_bus_left(onewire, kernel):
    kernel.rename(kernel.with_name("gone"))
    with pytest.raises(BusGone):
        onewire.read(ID, "w1_slave")
    with pytest.raises(BusGone):
        onewire.devices()
    with pytest.raises(BusGone, match="w1-gpio"):
        onewire.open()


def test_closed(onewire):
    onewire.close()
    onewire.close()
    with pytest.raises(BusGone, match="not open"):
        onewire.read(ID, "w1_slave")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(onewire, kernel):
    (kernel / ID / "w1_slave").chmod(0)
    with pytest.raises(BusDenied, match="group"):
        onewire.read(ID, "w1_slave")


# --- SPI -------------------------------------------------------------------------------------------------


def test_the_structure_of_the_kernel():
    assert _TRANSFER.size == 32


def test_a_node_that_is_not_there():
    handle = make_handle("spi", SpiBusConfig(kind="spi", device="/dev/spidev99.0"))
    assert isinstance(handle, LinuxSpi)
    with pytest.raises(BusGone, match="is SPI enabled"):
        handle.open()
    handle.close()
    with pytest.raises(BusGone, match="not open"):
        handle.transfer(b"\0")


def test_a_node_that_is_no_spi_device():
    handle = LinuxSpi("spi", SpiBusConfig(kind="spi", device="/dev/null"))
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(BusError, match="no SPI device"):
        handle.open()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EMSGSIZE, PlaceRefused),
        (errno.EINVAL, PlaceRefused),
        (errno.EIO, BusError),
        (errno.ENODEV, BusGone),
    ],
)
def test_what_one_device_wants_is_told_from_what_the_bus_cannot(number: int, kind: type[BusError]) -> None:
    handle = LinuxSpi("spi", SpiBusConfig(kind="spi", device="/dev/null"))
    handle._fd = os.open("/dev/null", os.O_RDWR)
    with pytest.raises(BusError) as caught, handle._mapped():
        raise OSError(number, os.strerror(number))
    assert type(caught.value) is kind
    handle.close()


@pytest.mark.parametrize("options", [{"max_speed_hz": 9_999}, {"mode": 4}, {"max_speed_hz": 200_000_000}])
def test_options_are_checked(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        SpiBusConfig(kind="spi", device="/dev/spidev0.0", **options)
