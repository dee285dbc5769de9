"""What the guard carries out: the recipes of every actuator driver, on a board, a port and a broker."""

import os
import pty
import select
import subprocess
import termios
import tty
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from device_agent.bus.config import BusConfig, GpioBusConfig, MqttBusConfig, SerialBusConfig
from device_agent.bus.mqtt_paho import PahoMqtt
from device_agent.bus.recipe import Recipe
from device_agent.bus.serial_port import SerialPort
from device_agent.driver import Actuator
from device_agent.errors import BusError
from device_agent.guard.actions import carry_out
from device_agent.safety.safe_recorder import open_and_record, recorded
from device_agent.testing.board import Board, open_handle
from device_agent.testing.board.server import BoardServer
from support.mosquitto import Broker, collected
from support.waiting import LIMIT_S

BUSES: dict[str, dict[str, Any]] = {
    "gpio": {"chip": "gpiochip0"},
    "i2c": {"device": "/dev/i2c-1"},
    "serial": {"port": "/dev/ttyUSB0"},
    "mqtt": {"host": "localhost"},
}
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "gpio-output": ("gpio", {"line": 27, "safe": False, "active_low": True}, {"on": True}),
    "mcp23017": (
        "i2c",
        {"outputs": ["a0", "b7"], "safe": {"a0": False, "b7": True}, "active_low": ["b7"]},
        {"a0": True, "b7": False},
    ),
    "pcf8574": (
        "i2c",
        {"outputs": ["p0", "p7"], "safe": {"p0": True, "p7": False}},
        {"p0": False, "p7": True},
    ),
    "pca9685": ("i2c", {"channels": ["ch0", "ch5"], "safe": 0.25}, {"ch0": 1.0, "ch5": 0.0}),
    "serial-lines": (
        "serial",
        {
            "pattern": "(?P<setpoint>[0-9]+)",
            "command": "SP {setpoint}\n",
            "points": {"setpoint": {"unit": "g", "write": True, "safe": 0}},
        },
        {"setpoint": 250},
    ),
    "serial-ask": (
        "serial",
        {
            "ask": "SP?\r\n",
            "pattern": "(?P<setpoint>[0-9]+)",
            "command": "SP {setpoint}\n",
            "points": {"setpoint": {"unit": "g", "write": True, "safe": 0}},
        },
        {"setpoint": 250},
    ),
    "mqtt-topic": (
        "mqtt",
        {
            "points": {
                "on": {
                    "type": "boolean",
                    "topic": "p/on",
                    "write": True,
                    "write_topic": "p/set",
                    "safe": False,
                }
            }
        },
        {"on": True},
    ),
    "gpio-pwm": ("gpio", {"line": 18, "safe": 0.25, "active_low": True}, {"duty": 1.0}),
    "servo": ("gpio", {"line": 12, "safe": -45}, {"angle": 60}),
    "i2c-registers": (
        "i2c",
        {
            "address": 0x2F,
            "points": {
                "duty": {"register": 0x10, "write": True, "maximum": 100, "safe": 30},
                "on": {"register": 0x11, "mask": 0x01, "type": "boolean", "write": True, "safe": False},
            },
        },
        {"duty": 90, "on": True},
    ),
    "ssd1306": ("i2c", {"safe": "closed"}, {"text": "open"}),
    "modbus-rtu": (
        "serial",
        {
            "points": {
                "speed": {"address": 100, "write": True, "safe": 0},
                "run": {"kind": "coil", "address": 3, "write": True, "safe": False},
            }
        },
        {"speed": 40, "run": True},
    ),
    "framed-msgpack": (
        "serial",
        {"points": {"lamp": {"type": "boolean", "write": True, "safe": False}}},
        {"lamp": True},
    ),
}


def test_every_actuator_driver_is_tested_below() -> None:
    """A new driver that moves something needs a case in CASES."""
    drivers = {entry.name: entry.load() for entry in entry_points(group="device_agent.drivers")}
    ours = {
        name
        for name, driver in drivers.items()
        if driver.__module__.startswith("device_agent_drivers.") and issubclass(driver, Actuator)
    }
    assert ours - {"serial-frames"} == set(CASES)  # of which no point can be set


def action_of(recipe: Recipe) -> dict[str, Any]:
    return {"kind": recipe.kind, **recipe.members}


@pytest.mark.parametrize("name", CASES)
def test_every_actuator_is_made_safe_by_what_its_driver_wrote(name: str, tmp_path: Path) -> None:
    """On a board that only the recipe's descriptor reaches."""
    kind, options, away = CASES[name]
    (entry,) = entry_points(group="device_agent.drivers", name=name)
    driver_class = entry.load()
    config = driver_class.Config(bus="bus", **options)
    bus = TypeAdapter(BusConfig).validate_python({"kind": kind, **BUSES[kind]})
    path = tmp_path / "board.sock"
    with Board({"bus": bus}, {"it": (driver_class, config)}) as board, BoardServer(board, path):
        inner = open_handle("bus", bus, board=path)
        inner.open()
        handle = recorded(inner)
        driver = driver_class(config, handle)

        def world() -> Any:
            shown = board.show()
            lines = shown["buses"]["bus"].get("lines", ())
            driven = [(line["line"], line["duty"] if "duty" in line else line["level"]) for line in lines]
            return shown["devices"]["it"]["values"], driven

        recipes = open_and_record("it", driver)
        assert recipes
        at_safe = world()
        assert issubclass(driver_class, Actuator)
        driver.write(away)
        assert world() != at_safe
        for recipe in recipes:
            carry_out(action_of(recipe), recipe.fd)
        assert world() == at_safe
        assert {e["by"] for e in board.record.entries if e["t"] == board.record.entries[-1]["t"]} >= {"guard"}
        driver.close()
        for recipe in recipes:
            recipe.close()
        inner.close()


def test_a_bus_in_the_daemons_own_process_is_reported_unguarded() -> None:
    (entry,) = entry_points(group="device_agent.drivers", name="gpio-output")
    driver_class = entry.load()
    config = driver_class.Config(bus="bus", line=27, safe=False)
    bus = GpioBusConfig(kind="gpio", chip="gpiochip0")
    with Board({"bus": bus}, {"it": (driver_class, config)}) as board:
        handle = open_handle("bus", bus, board=board)
        handle.open()
        driver = driver_class(config, recorded(handle))
        assert open_and_record("it", driver) == []
        driver.write({"on": True})
        driver.close()
        handle.close()


@pytest.fixture
def port() -> Iterator[tuple[SerialPort, int]]:
    far, near = pty.openpty()
    tty.setraw(near)
    port = SerialPort("meter", SerialBusConfig(kind="serial", port=os.ttyname(near)))
    port.open()
    os.close(near)
    yield port, far
    port.close()
    os.close(far)


def test_a_serial_port_goes_on_after_its_owner(port: tuple[SerialPort, int]) -> None:
    handle, far = port
    recipe = handle.recipe([b"STOP\n", 0.001, b"OFF\n"])
    assert recipe.exclusive
    handle.close()
    carry_out(action_of(recipe), recipe.fd)
    heard = b""
    while len(heard) < len(b"STOP\nOFF\n"):
        assert select.select([far], [], [], LIMIT_S)[0], heard
        heard += os.read(far, 100)
    assert heard == b"STOP\nOFF\n"
    # While the guard has the port nobody else does, which is why it gives it up with the device.
    with pytest.raises(BusError, match="in use"):
        handle.open()
    recipe.close()
    handle.open()


def test_a_serial_port_that_everybody_left_is_opened_as_it_was(port: tuple[SerialPort, int]) -> None:
    handle, far = port
    handle.set_baud(19_200)
    recipe = handle.recipe([b"STOP\n"])
    recipe.close()
    with pytest.raises(BlockingIOError):  # its owner lives
        carry_out(action_of(recipe), -1)
    handle.close()
    attributes = termios.tcgetattr(far)
    attributes[4] = attributes[5] = termios.B9600
    termios.tcsetattr(far, termios.TCSANOW, attributes)
    assert carry_out(action_of(recipe), -1) == -1
    assert os.read(far, 100) == b"STOP\n"
    assert termios.tcgetattr(far)[4:6] == [termios.B19200, termios.B19200]
    handle.open()  # nobody holds it


def test_a_broker_acknowledges_the_guards_messages(broker: Broker) -> None:
    broker.start()
    handle = PahoMqtt("broker", MqttBusConfig(kind="mqtt", host="127.0.0.1", port=broker.port))
    handle.open()
    source = handle.subscribe(("plug/#",))
    long = b"x" * 20_000
    recipe = handle.recipe([("plug/1", b"OFF", False), 0.01, ("plug/2", long, True)])
    carry_out(action_of(recipe), -1)
    got = collected(source, lambda got: len(got) == 2)
    assert [(message.topic, message.payload) for message in got] == [("plug/1", b"OFF"), ("plug/2", long)]
    source.close()
    retained = handle.subscribe(("plug/#",))
    assert [message.topic for message in collected(retained, bool)] == ["plug/2"]
    retained.close()
    handle.close()
    broker.stop()
    with pytest.raises(OSError):
        carry_out(action_of(recipe), -1)


def test_a_broker_that_wants_a_password(broker: Broker, tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", passwords, "guard", "secret"], check=True)
    broker.start("allow_anonymous false", f"password_file {passwords}")
    file = tmp_path / "password"
    file.write_text("secret\n")
    file.chmod(0o600)
    config = MqttBusConfig(
        kind="mqtt", host="127.0.0.1", port=broker.port, username="guard", password_file=str(file)
    )
    handle = PahoMqtt("broker", config)
    handle.open()
    right = action_of(handle.recipe([("plug/1", b"OFF", False)]))
    handle.close()
    carry_out(right, -1)
    with pytest.raises(ConnectionRefusedError, match="0005"):
        carry_out({**right, "password": "wrong"}, -1)
