"""`scan` on the kernel's own /dev and /sys: what the virtual hardware has, by name and identity."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from device_agent.bus.config import GpioBusConfig
from device_agent.bus.gpio_gpiod import GpiodGpio
from support.virtual_hardware import LIMIT_S, Rig


def device_agent(*words: str, code: int = 0) -> str:
    command = [sys.executable, "-m", "device_agent", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=4 * LIMIT_S, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def scanned() -> dict[str, Any]:
    return dict(json.loads(device_agent("scan", "--json", "--config", "/none")))


@pytest.fixture
def chips(rig: Rig) -> Iterator[None]:
    """A BME280 on the plain adapter; a BMP280 at the same address of the one that has SMBus only."""
    rig.make_bme280(rig.i2c)
    rig.i2c.present(0x76)
    rig.i2c.fault_off()
    rig.make_bme280(rig.smbus, chip_id=0x58)
    yield
    rig.make_bme280(rig.smbus)


def chip_at(found: dict[str, Any], bus: int, address: int) -> dict[str, Any]:
    (adapter,) = [one for one in found["i2c"] if one["device"] == f"/dev/i2c-{bus}"]
    (chip,) = [one for one in adapter["chips"] if one["place"] == address]
    return {**chip, "speaks": adapter["speaks"], "adapter": adapter["adapter"]}


def test_what_is_there(rig: Rig, chips: None) -> None:
    gpio = GpiodGpio("pins", GpioBusConfig(kind="gpio", chip="/dev/gpiochip0"))
    gpio.open()
    line = gpio.input(17)
    try:
        found = scanned()
    finally:
        line.close()
        gpio.close()
    bme = chip_at(found, rig.i2c.bus, 0x76)
    assert (bme["state"], bme["driver"], bme["speaks"]) == ("identified", "bme280", "i2c")
    bmp = chip_at(found, rig.smbus.bus, 0x76)
    assert (bmp["driver"], bmp["speaks"], bmp["adapter"][:10]) == ("bmp280", "smbus", "SMBus stub")
    header = found["gpio"][0]
    held = {line["offset"]: line["consumer"] for line in header["lines"] if line["consumer"]}
    assert held[17] == "device-agent"
    assert header["label"] == "pinctrl-bcm2711"
    ports = {port["device"]: port for port in found["serial"]}
    usb = ports[rig.port("usb")]
    assert (usb["vid"], usb["pid"]) == (0x0403, 0x6001)
    assert usb["driver"]
    assert "/dev/ttyS1" in ports
    if list(Path("/sys/bus/w1/devices").glob("28-*")):
        assert [(chip["state"], chip["driver"]) for chip in found["onewire"]] == [("identified", "ds18b20")]


def test_a_bus_in_use_is_not_asked(rig: Rig, chips: None) -> None:
    node = f"/dev/i2c-{rig.i2c.bus}"
    descriptor = os.open(node, os.O_RDWR)
    try:
        (bus,) = [one for one in scanned()["i2c"] if one["device"] == node]
    finally:
        os.close(descriptor)
    assert bus["note"].startswith("in use by ")
    assert bus["chips"] == []


def test_the_configuration_reads_the_sensor_at_once(rig: Rig, chips: None, tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    device_agent("scan", "--write", str(path), "--config", "/none")
    path.write_text(path.read_text().replace("/var/lib/device-agent", str(tmp_path)))
    assert "is right" in device_agent("--config", str(path), "check")
    reading = json.loads(device_agent("--config", str(path), "read", "bme280", "--json"))
    assert reading["values"]["temperature"] == pytest.approx(25.08, abs=0.01)
    (path.parent / "second.toml").write_text("")
    assert "--force" not in device_agent("scan", "--write", str(path), "--force", "--config", "/none")
