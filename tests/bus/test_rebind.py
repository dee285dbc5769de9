"""Taking the kernel's driver off the hardware and putting it back, on a copy of the tree in /sys."""

import os
from pathlib import Path

import pytest

from device_agent.bus import rebind
from device_agent.bus.rebind import Rebinder
from device_agent.errors import BusDenied, BusError, BusGone


def test_a_driver_is_taken_off_and_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebind, "DEVICES", tmp_path / "devices")
    driver = tmp_path / "drivers" / "i2c-bcm2835"
    driver.mkdir(parents=True)
    (driver / "unbind").touch()
    (driver / "bind").touch()
    adapter = tmp_path / "devices" / "platform" / "fe804000.i2c" / "i2c-1"
    adapter.mkdir(parents=True)
    (adapter.parent / "driver").symlink_to(driver)
    node = tmp_path / "i2c-1"
    node.touch()
    rebinder = Rebinder("i2c1")
    rebinder.attach(str(node))
    assert not (driver / "bind").read_text(), "what was not taken off is not put back"
    rebinder.detach(str(node), adapter)
    assert (driver / "unbind").read_text() == "fe804000.i2c"
    rebinder.attach(str(node))
    assert (driver / "bind").read_text() == "fe804000.i2c"
    with pytest.raises(BusGone, match="no USB device that could enumerate anew"):
        rebinder.detach(str(node), adapter, usb=True)


def adapter_with_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A driver's folder and the adapter's, as the kernel links them."""
    monkeypatch.setattr(rebind, "DEVICES", tmp_path / "devices")
    driver = tmp_path / "drivers" / "ftdi_sio"
    driver.mkdir(parents=True)
    adapter = tmp_path / "devices" / "usb1" / "1-1"
    adapter.mkdir(parents=True)
    (adapter / "driver").symlink_to(driver)
    return driver, adapter


def test_the_usb_device_itself_is_taken_off_not_its_interface(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, adapter = adapter_with_driver(tmp_path, monkeypatch)
    (driver / "unbind").touch()
    (adapter / "idVendor").write_text("0403")
    interface = adapter / "1-1:1.0"
    interface.mkdir()
    inner = tmp_path / "drivers" / "interface"
    inner.mkdir()
    (inner / "unbind").touch()
    (interface / "driver").symlink_to(inner)
    Rebinder("meter").detach("/dev/ttyUSB0", interface, usb=True)
    assert (driver / "unbind").read_text() == "1-1"
    assert (inner / "unbind").read_text() == ""


def test_hardware_without_a_driver_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, adapter = adapter_with_driver(tmp_path, monkeypatch)  # its driver cannot be unbound
    with pytest.raises(BusGone, match="no hardware with a driver of the kernel"):
        Rebinder("meter").detach("/dev/ttyUSB0", adapter)


def test_a_second_detach_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver, adapter = adapter_with_driver(tmp_path, monkeypatch)
    (driver / "unbind").touch()
    rebinder = Rebinder("meter")
    rebinder.detach("/dev/ttyUSB0", adapter)
    (driver / "unbind").write_text("")
    rebinder.detach("/dev/ttyUSB0", adapter)
    assert (driver / "unbind").read_text() == ""


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_files_that_may_not_be_written_name_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, adapter = adapter_with_driver(tmp_path, monkeypatch)
    (driver / "unbind").touch(mode=0o400)
    with pytest.raises(BusDenied, match="by a udev rule"):
        Rebinder("meter").detach("/dev/ttyUSB0", adapter)


def test_a_driver_that_refuses_can_be_put_back_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver, adapter = adapter_with_driver(tmp_path, monkeypatch)
    (driver / "unbind").touch()
    node = tmp_path / "node"
    node.touch()
    rebinder = Rebinder("meter")
    rebinder.detach(str(node), adapter)
    (driver / "bind").mkdir()  # any error of the kernel
    with pytest.raises(BusError, match="bind"):
        rebinder.attach(str(node))
    (driver / "bind").rmdir()
    rebinder.attach(str(node))
    assert (driver / "bind").read_text() == "1-1"
