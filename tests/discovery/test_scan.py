"""`scan` on machines made of files, with simulated chips behind their I2C adapters."""

import argparse
import json
import tomllib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from device_agent.bus.config import I2cBusConfig
from device_agent.cli import scan as command
from device_agent.config import load
from device_agent.discovery.compose import Answers, agent_name, compose, toml
from device_agent.discovery.results import ScanResult
from device_agent.discovery.scan import installed, scan
from device_agent.errors import AgentError
from device_agent.testing import Board, open_handle
from device_agent_drivers.bme280 import Bme280, Bme280Config
from device_agent_drivers.pca9685 import Pca9685, Pca9685Config
from device_agent_drivers.ssd1306 import Ssd1306, Ssd1306Config
from support.machine_tree import HEADER, Tree

DRIVERS, _ = installed()


@pytest.fixture
def pi(tree: Tree) -> Iterator[Tree]:
    """A Pi with a sensor, a PWM chip and a display on I2C, two USB adapters, a thermometer, a broker."""
    configs = {"i2c1": I2cBusConfig(kind="i2c", device="/dev/i2c-1")}
    board = Board(
        configs,
        {
            "climate": (Bme280, Bme280Config(bus="i2c1")),
            "lamps": (Pca9685, Pca9685Config(bus="i2c1", safe=0)),
            "sign": (Ssd1306, Ssd1306Config(bus="i2c1")),
        },
    )
    tree.i2c(1, "bcm2835 (i2c@7e804000)", lambda: open_handle("i2c1", configs["i2c1"], board=board))  # type: ignore[arg-type, return-value]
    tree.i2c(20, "fef04500.i2c")
    tree.file("/dev/gpiochip0")
    tree.link("/dev/gpiochip4", "/dev/gpiochip0")
    tree.chips["/dev/gpiochip0"] = HEADER
    tree.file("/dev/gpiochip1")
    tree.usb_port("ttyUSB0", "1-1.3", idVendor="0403", idProduct="6001", serial="A50285BI", product="FT232R")
    tree.usb_port("ttyUSB10", "1-1.4", idVendor="1a86", idProduct="7523")
    tree.link("/dev/serial/by-id/usb-FTDI_A50285BI-if00-port0", "/dev/ttyUSB0")
    tree.file("/sys/class/tty/ttyS0/type", "0")
    tree.file("/sys/class/tty/ttyS0/device/x")
    tree.file("/dev/ttyS0")
    tree.process(812, "screen", "/dev/ttyUSB10")
    tree.file("/sys/bus/i2c/devices/1-0068/name", "ds3231")
    tree.file("/sys/bus/i2c/drivers/rtc-ds1307/x")
    tree.link("/sys/bus/i2c/devices/1-0068/driver", "/sys/bus/i2c/drivers/rtc-ds1307")
    for sensor in ("28-0316a2794caf", "3a-0000001911d2"):
        tree.file(f"/sys/bus/w1/devices/{sensor}/id")
    tree.file("/sys/bus/w1/devices/w1_bus_master1/x")
    tree.file("/dev/spidev0.0")
    tree.file("/sys/class/pwm/pwmchip0/npwm", "2\n")
    tree.link("/sys/class/pwm/pwmchip0/device", "../../../devices/platform/soc/fe20c000.pwm")
    tree.file("/sys/class/video4linux/video0/name", "USB 2.0 Camera")
    tree.file("/sys/class/video4linux/video0/index", "0")
    tree.file("/sys/class/video4linux/video1/index", "1")
    tree.file("/sys/class/video4linux/video10/name", "bcm2835-codec-decode")
    tree.file("/proc/net/tcp", "  sl  local rem st\n   0: 0100007F:075B 00000000:0000 0A 0 0\n")
    yield tree
    board.close()


def found_on(tree: Tree, daemon: dict[str, str] | None = None) -> ScanResult:
    return scan(tree.system, daemon or {}, DRIVERS, [])


def test_everything_is_found(pi: Tree) -> None:
    found = found_on(pi)
    assert found.board == "Raspberry Pi 4 Model B Rev 1.4"
    bus, hdmi = found.i2c
    assert (bus.device, bus.adapter, bus.speaks) == ("/dev/i2c-1", "bcm2835 (i2c@7e804000)", "i2c")
    assert [(chip.place, chip.state, chip.driver) for chip in bus.chips] == [
        (0x3C, "candidate", ""),
        (0x40, "identified", "pca9685"),
        (0x68, "kernel", "rtc-ds1307"),
        (0x76, "identified", "bme280"),
    ]
    assert hdmi.note == "belongs to a monitor or the mainboard: not asked"
    header, denied = found.gpio  # gpiochip4 is the same one
    assert (header.label, [line.consumer for line in header.lines]) == (
        "pinctrl-bcm2711",
        ["", "door-watch", ""],
    )
    assert "add your user to group" in denied.note
    assert [(chip.place, chip.state) for chip in found.onewire] == [
        ("28-0316a2794caf", "identified"), ("3a-0000001911d2", "unknown")
    ]  # fmt: skip
    ftdi, ch340 = found.serial  # no hardware behind ttyS0
    assert (ftdi.vid, ftdi.pid, ftdi.serial, ftdi.location) == (0x0403, 0x6001, "A50285BI", "1-1.3")
    assert ftdi.stable == "/dev/serial/by-id/usb-FTDI_A50285BI-if00-port0"
    assert (ch340.device, ch340.holder) == ("/dev/ttyUSB10", "screen (process 812)")
    assert [thing.device for thing in found.spi] == ["/dev/spidev0.0"]
    assert [(thing.device, thing.what) for thing in found.pwm] == [("fe20c000.pwm", "pwmchip0, 2 channels")]
    assert [thing.device for thing in found.cameras] == ["/dev/video0"]
    assert [thing.device for thing in found.brokers] == ["127.0.0.1:1883"]
    json.dumps(asdict(found))
    assert any("bme280  (BME280, chip id 0x60)" in line for line in command.lines(found))


@pytest.mark.parametrize("place", ["/dev/i2c-1", "bcm2835 (i2c@7e804000)"])
def test_a_bus_of_the_daemon_is_left_alone(pi: Tree, place: str) -> None:
    del pi.buses["/dev/i2c-1"]
    bus = found_on(pi, {place: "the running daemon (bus i2c1)"}).i2c[0]
    assert bus.note == "in use by the running daemon (bus i2c1): not asked"


def test_a_bus_that_somebody_has_open_is_left_alone(pi: Tree) -> None:
    del pi.buses["/dev/i2c-1"]
    pi.process(99, "python3", "/dev/i2c-1")
    assert found_on(pi).i2c[0].note == "in use by python3 (process 99): not asked"


def test_a_bus_that_cannot_be_opened_says_why(pi: Tree) -> None:
    del pi.buses["/dev/i2c-1"]
    bus = found_on(pi).i2c[0]
    assert bus.note == "/dev/i2c-1 was not to be opened"
    assert [chip.state for chip in bus.chips] == ["kernel"]


def test_the_configuration_is_right_as_it_is(pi: Tree, tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    command.write(
        path, compose(found_on(pi), DRIVERS, Answers("house", display_name='"Ä" \\ \x7f')), force=False
    )
    config = load(path)
    assert set(config.devices) == {"bme280", "ds18b20", "host"}
    assert config.agent.display_name == '"Ä" \\ \x7f'
    assert not config.warnings
    assert path.stat().st_mode & 0o777 == 0o644
    with pytest.raises(AgentError, match="--force"):
        command.write(path, "", force=False)


def uncommented(text: str) -> str:
    """As a person would: every suggestion taken, the safe values decided."""
    lines = [
        line[2:] if line.startswith("# ") else "" if line.startswith("#") else line
        for line in text.splitlines()
    ]
    return "\n".join("safe = 0" if line.startswith("safe =  ") else line for line in lines)


def test_what_waits_for_a_decision_is_right_once_it_is_decided(pi: Tree, tmp_path: Path) -> None:
    text = compose(found_on(pi), DRIVERS, Answers("house"))
    rest = text.partition("[agent]")[2]
    wanted = uncommented("[agent]" + rest).split("\n\n")
    skipped = ("pcf8574", "serial-lines")  # the other candidate of 0x3c; a driver that needs a pattern
    kept = "\n\n".join(block for block in wanted if not any(f'driver = "{one}"' in block for one in skipped))
    path = tmp_path / "agent.toml"
    path.write_text(kept)
    config = load(path)
    assert {"pca9685", "ssd1306", "door", "relay", "adc"} <= set(config.devices)
    assert {"i2c1", "w1", "pins", "port1", "port2", "spi0_0", "broker"} == set(config.buses)
    assert tomllib.loads(kept)["buses"]["port2"]["port"] == {
        "vid": 0x1A86,
        "pid": 0x7523,
        "location": "1-1.4",
    }
    assert tomllib.loads(kept)["buses"]["pins"]["chip"] == "pinctrl-bcm2711"
    assert tomllib.loads(kept)["buses"]["pins"]["pwm"] == {"18": "fe20c000.pwm/0"}
    assert "pinctrl-rp1 Pi 5" in kept


def test_an_empty_machine_has_a_configuration_too(tree: Tree, tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(compose(found_on(tree), DRIVERS, Answers("house")))
    assert set(load(path).devices) == {"host"}
    path.write_text(compose(found_on(tree), {}, Answers("house")))
    assert load(path).devices == {}


@pytest.mark.parametrize(
    ("text", "name"), [("grün-haus.local", "gr_n_haus_local"), ("--", "device"), ("pi", "pi")]
)
def test_a_host_name_becomes_an_agent_s(text: str, name: str) -> None:
    assert agent_name(text) == name


def test_strings_survive(tmp_path: Path) -> None:
    text = "".join(chr(code) for code in range(1, 0x3000)) + "😀"
    assert tomllib.loads(f"x = {toml(text)}")["x"] == text


def test_the_command_here(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """On whatever machine this is: it ends, and what it writes is right."""
    monkeypatch.setenv("DEVICE_AGENT_CONFIG", str(tmp_path / "none.toml"))
    out = tmp_path / "agent.toml"
    assert command.run(argparse.Namespace(json=True, write=str(out), force=False, config=None)) == 0
    assert {"board", "i2c", "serial"} <= set(json.loads(capsys.readouterr().out))
    assert load(out).devices
