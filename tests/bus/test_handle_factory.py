"""From a bus table to its handle: right class, nothing touched, nothing heavy loaded."""

import subprocess
import sys

import pytest
from pydantic import TypeAdapter

from device_agent.bus.config import BusConfig
from device_agent.bus.factory import make_handle
from device_agent.errors import BusDenied, BusError, BusGone

TABLES = {
    "LinuxI2c": {"kind": "i2c", "device": "/dev/i2c-99"},
    "GpiodGpio": {"kind": "gpio", "chip": "/dev/gpiochip99"},
    "GpiozeroGpio": {"kind": "gpio", "chip": "/dev/gpiochip99", "backend": "gpiozero"},
    "SerialPort": {"kind": "serial", "port": "/dev/ttyNOPE"},
    "PahoMqtt": {"kind": "mqtt", "host": "127.0.0.1", "port": 1},
}


@pytest.mark.parametrize(("name", "table"), TABLES.items())
def test_each_kind_has_its_handle(name, table):
    handle = make_handle("bus", TypeAdapter(BusConfig).validate_python(table))
    assert type(handle).__name__ == name
    assert handle.kind == table["kind"]
    handle.close()
    with pytest.raises((BusGone, BusDenied)):
        handle.open()
    handle.close()
    handle.close()


def test_no_hardware_library_before_open():
    program = """
import sys
from pydantic import TypeAdapter
from device_agent.bus.config import BusConfig
from device_agent.bus.factory import make_handle
for table in TABLES:
    make_handle("bus", TypeAdapter(BusConfig).validate_python(table))
from device_agent_drivers import bme280, gpio_input, host, mqtt_topic, serial_lines
heavy = {"smbus2", "serial", "gpiod", "gpiozero", "lgpio", "paho", "device_agent.testing"} & set(sys.modules)
sys.exit(f"loaded: {heavy}" if heavy else 0)
""".replace("TABLES", repr(list(TABLES.values())))
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.parametrize("table", [
    {"kind": "i2c", "device": "no such adapter"},
    {"kind": "gpio", "chip": "no such chip"},
])  # fmt: skip
def test_an_unknown_name_lists_the_known_ones(table):
    handle = make_handle("bus", TypeAdapter(BusConfig).validate_python(table))
    with pytest.raises(BusGone, match=r"there (is no|are)"):
        handle.open()


def test_a_node_of_another_kind_is_refused_and_leaks_nothing():
    for table in ({"kind": "i2c", "device": "/dev/null"}, {"kind": "gpio", "chip": "/dev/null"}):
        handle = make_handle("bus", TypeAdapter(BusConfig).validate_python(table))
        for _ in range(3):
            with pytest.raises(BusError):
                handle.open()
