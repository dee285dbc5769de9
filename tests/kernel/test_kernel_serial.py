"""Serial ports of the kernel: a USB adapter that is pulled out and put back, and a UART nobody reads."""

import fcntl
import os
import re
import struct
import termios
import threading
from collections.abc import Iterator

import pytest

from device_agent.bus.config import SerialBusConfig
from device_agent.bus.serial_port import SerialPort
from device_agent.errors import BusGone, BusHeld, BusTimeout
from device_agent_drivers.serial_lines import SerialLines, SerialLinesConfig
from support.virtual_hardware import Rig, as_nobody, collected
from support.waiting import until

SCALE = SerialLinesConfig.model_validate(
    {
        "pattern": r"^W +(?P<weight>-?[0-9.]+)",
        "command": "SP {setpoint}\n",
        "points": {"weight": {"unit": "g"}, "setpoint": {"unit": "g", "write": True, "safe": 0}},
    }
)
FTDI = {"vid": 0x0403, "pid": 0x6001}


@pytest.fixture
def usb(rig: Rig) -> Iterator[SerialPort]:
    port = SerialPort("meter", SerialBusConfig.model_validate({"kind": "serial", "port": FTDI}))
    port.open()
    yield port
    port.close()
    if rig.port("usb") is None:
        rig.plug("usb")


def read_lines(driver: SerialLines, source, count: int) -> list[object]:
    got: list[dict] = []

    def enough(chunks: list[bytes]) -> bool:
        got.extend(dict(values) for chunk in chunks for values in driver.feed(chunk))
        chunks.clear()
        return len(got) >= count

    collected(source, enough)
    return [values["weight"] for values in got]


def test_a_scale_that_is_pulled_out_and_put_back(rig, usb):
    node = usb.path
    assert node == rig.port("usb")
    driver = SerialLines(SCALE, usb)
    with rig.far_end("usb") as scale:
        driver.open()
        assert scale.read(5, 10.0) == b"SP 0\n"
        source = driver.listen()
        scale.write(b"\nW  12.5\r\nnoise\r\nW -3\r\n")
        assert read_lines(driver, source, 2) == [12.5, -3.0]
        driver.write({"setpoint": 250})
        assert scale.read(7, 10.0) == b"SP 250\n"
    rig.unplug("usb")
    with pytest.raises(BusGone, match="was unplugged"):
        collected(source, lambda got: False)
    with pytest.raises(BusGone):
        driver.write({"setpoint": 1})
    source.close()
    with pytest.raises(BusGone, match=r"no USB serial port 0403:6001; there"):
        usb.open()  # closes first, else it would come back as ttyUSB1
    rig.plug("usb")
    usb.open()
    assert usb.path == node
    with rig.far_end("usb") as scale:
        driver.open()
        scale.read(5, 10.0)
        source = driver.listen()
        scale.write(b"\nW 7\n")
        assert read_lines(driver, source, 1) == [7.0]


def test_an_adapter_enumerates_anew(rig, usb):
    """As if pulled out and put back, by the kernel's own driver; a UART on the board is left alone."""
    usb.close()
    usb.detach()
    assert rig.port("usb") is None
    usb.attach()
    usb.open()
    with rig.far_end("usb") as far:
        usb.write(b"hello")
        assert far.read(5, 10.0) == b"hello"
    uart = SerialPort("uart", SerialBusConfig(kind="serial", port="/dev/ttyS1"))
    with pytest.raises(BusGone, match="no USB device"):
        uart.detach()


def test_identity_and_holder(rig, usb):
    described = SerialBusConfig.model_validate({"kind": "serial", "port": {**FTDI, "serial": "none such"}})
    with pytest.raises(BusGone, match=re.escape(usb.path)):
        SerialPort("meter", described).open()
    with pytest.raises(BusHeld, match=f"{usb.path} is in use"):
        SerialPort("other", SerialBusConfig(kind="serial", port=usb.path)).open()


def test_a_far_end_that_does_not_read_is_a_time_out(rig):
    port = SerialPort("uart", SerialBusConfig(kind="serial", port="/dev/ttyS1", baud=115_200, timeout_s=1))
    port.open()
    try:
        with pytest.raises(BusTimeout, match="check flow control"):
            port.write(b"x" * 1_000_000)
    finally:
        with rig.far_end("ttyS1") as far:
            while far.read(65_536, 0.3):
                pass
        port.close()


def test_rts_gives_the_direction(rig):
    """An adapter whose driver cannot switch it: RTS is up while bytes leave, and down again behind them."""
    config = {"port": FTDI, "rs485": {"delay_before_s": 0.1, "delay_after_s": 0.1}}
    port = SerialPort("meter", SerialBusConfig.model_validate({"kind": "serial", **config}))
    port.open()
    levels = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.005):
            levels.append(struct.unpack("i", fcntl.ioctl(port.fileno(), termios.TIOCMGET, b"0000"))[0])

    watching = threading.Thread(target=watch)
    try:
        watching.start()
        until(lambda: levels, "the level at rest")
        at_rest = len(levels)
        with rig.far_end("usb") as far:
            port.write(b"hello")
            assert far.read(5, 10.0) == b"hello"
        after = len(levels)
        until(lambda: len(levels) > after + 1, "the level after it")
    finally:
        ended.set()
        watching.join()
        steps = port.recipe([b"safe"]).members["steps"]
        port.close()
    up = [bool(level & termios.TIOCM_RTS) for level in levels]
    assert not any(up[: at_rest - 1])
    assert any(up[at_rest:after])
    assert not up[-1]
    assert steps == [True, 0.1, b"safe", 0.1, False], "the guard does the same"


def test_permission_names_the_group(rig):
    printed = as_nobody("""
from device_agent.bus.config import SerialBusConfig
from device_agent.bus.serial_port import SerialPort
try:
    SerialPort("meter", SerialBusConfig(kind="serial", port="/dev/ttyS1")).open()
except Exception as error:
    print(type(error).__name__, error)
""")
    assert "BusDenied" in printed, printed
    assert "add the user to its group" in printed


def test_reopening_leaks_nothing(usb):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        usb.open()
        with pytest.raises(BusGone):
            SerialPort("no", SerialBusConfig(kind="serial", port="/dev/ttyUSB77")).open()
    assert len(os.listdir("/proc/self/fd")) <= before
