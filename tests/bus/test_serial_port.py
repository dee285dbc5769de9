"""Serial ports on a pseudo-terminal: the far end is the test."""

import os
import subprocess
import sys
import termios
import threading
import time
import tty
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from device_agent.bus.config import SerialBusConfig, UsbIdentity
from device_agent.bus.serial_port import SerialPort, _fits, find_usb
from device_agent.errors import BusError, BusGone, BusHeld, BusTimeout
from support.mosquitto import collected


class FarEnd:
    """The other side of the cable."""

    def __init__(self) -> None:
        self.fd, node = os.openpty()
        tty.setraw(node)
        self.path = os.ttyname(node)
        os.close(node)

    def config(self, **options) -> SerialBusConfig:
        return SerialBusConfig(kind="serial", port=self.path, **options)

    def close(self) -> None:
        fd, self.fd = self.fd, -1  # a test may pull the plug on another thread
        if fd >= 0:
            os.close(fd)


@pytest.fixture
def far() -> Iterator[FarEnd]:
    far = FarEnd()
    yield far
    far.close()


@pytest.fixture
def port(far: FarEnd) -> Iterator[SerialPort]:
    port = SerialPort("meter", far.config(timeout_s=0.5))
    port.open()
    yield port
    port.close()


def test_bytes_both_ways(far, port):
    port.write(b"\x00\x11\x13\xff hello\r\n")
    assert os.read(far.fd, 100) == b"\x00\x11\x13\xff hello\r\n"
    os.write(far.fd, bytes(range(256)))
    assert port.read(256, 5.0) == bytes(range(256))


def test_read_ends_with_its_limit(far, port):
    os.write(far.fd, b"ab")
    assert port.read(10, 0.05) == b"ab"
    assert port.read(10, 0.0) == b""


def test_source_gives_what_arrives(far, port):
    source = port.listen()
    assert source.drain() == []
    os.write(far.fd, b"x" * 3000)
    os.write(far.fd, b"y" * 50)
    got = b"".join(collected(source, lambda chunks: sum(map(len, chunks)) >= 3050))
    assert got == b"x" * 3000 + b"y" * 50
    source.close()
    assert list(source.drain()) == []


def test_settings_reach_the_port(far):
    port = SerialPort("meter", far.config(baud=115_200, data_bits=7, parity="even", stop_bits=2))
    port.open()
    try:
        cflag, ispeed = termios.tcgetattr(port.fileno())[2], termios.tcgetattr(port.fileno())[4]
    finally:
        port.close()
    assert ispeed == termios.B115200
    assert cflag & termios.CSIZE == termios.CS7 or cflag & termios.CSTOPB  # a pty keeps only some of them


def test_another_speed_until_it_is_opened_again(far):
    port = SerialPort("meter", far.config(baud=300))
    port.open()
    try:
        port.write(b"/?!\r\n")
        port.set_baud(9600)
        assert (port.baud, termios.tcgetattr(port.fileno())[5]) == (9600, termios.B9600)
        port.listen()
        assert port.drain() == [], "silence is no unplugged port"
        port.open()
        assert (port.baud, termios.tcgetattr(port.fileno())[5]) == (300, termios.B300)
        with pytest.raises(BusError, match="baud"):
            port.set_baud(-1)
    finally:
        port.close()


def test_a_port_without_rts_cannot_switch_a_direction(far):
    """A pseudo-terminal has none."""
    with pytest.raises(BusError, match="has no RTS"):
        SerialPort("meter", far.config(rs485=True)).open()
    with pytest.raises(ValidationError, match="rts-cts"):
        far.config(rs485=True, flow_control="rts-cts")
    port = SerialPort("meter", far.config(dtr=False, rts=False))
    port.open()
    port.close()


def test_discard_input_drops_what_arrived(far, port):
    os.write(far.fd, b"late answer")
    collected(port.listen(), lambda chunks: bool(chunks))
    os.write(far.fd, b"later answer")
    port.discard_input()
    os.write(far.fd, b"new")
    assert port.read(3, 5.0) == b"new"


def test_a_far_end_that_takes_nothing_is_a_time_out(port):
    with pytest.raises(BusTimeout, match="of 1000000 bytes"):
        port.write(b"x" * 1_000_000)


def test_a_second_owner_gets_the_holders_name(far, port):
    with pytest.raises(BusHeld, match=r"in use.*stop that program"):
        SerialPort("other", far.config()).open()


def test_a_holder_in_another_process_is_named(far):
    program = (
        "import serial,sys; p = serial.Serial(sys.argv[1], exclusive=True); print(1, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, far.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(BusHeld, match=rf"process {process.pid}"):
            SerialPort("meter", far.config()).open()
        process.communicate(b"\n", timeout=30)


def test_unplugged_while_open(far, port):
    source = port.listen()
    far.close()
    for use in (
        lambda: source.drain(),
        lambda: port.read(1, 1.0),
        lambda: port.write(b"x"),
        lambda: port.listen().drain(),
    ):
        with pytest.raises(BusGone, match="was unplugged"):
            use()
    port.close()
    with pytest.raises(BusGone, match="not open"):
        port.write(b"x")


def test_unplugged_during_a_read(far, port):
    pulling = threading.Timer(0.05, far.close)
    pulling.start()
    began_s = time.monotonic()
    with pytest.raises(BusGone):
        port.read(1, 60.0)
    assert time.monotonic() - began_s < 30
    pulling.join()


def test_not_there():
    port = SerialPort("meter", SerialBusConfig(kind="serial", port="/dev/serial/by-id/nothing"))
    with pytest.raises(BusGone, match="is the adapter plugged in"):
        port.open()
    port.close()
    port.close()


def test_no_serial_port_at_all(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(BusError):
        SerialPort("meter", SerialBusConfig(kind="serial", port=str(file))).open()


def test_reopening_leaks_nothing(far):
    port = SerialPort("meter", far.config())
    port.open()
    port.close()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        port.open()
    port.close()
    for _ in range(20):
        with pytest.raises(BusGone):
            SerialPort("no", SerialBusConfig(kind="serial", port="/dev/no-such-port")).open()
    assert len(os.listdir("/proc/self/fd")) <= before


def usb(device: str, serial: str | None, location: str) -> SimpleNamespace:
    return SimpleNamespace(device=device, vid=0x0403, pid=0x6001, serial_number=serial, location=location)


def test_usb_identity():
    first, second = usb("/dev/ttyUSB0", "A1", "1-1.2"), usb("/dev/ttyUSB1", None, "1-1.3:1.0")
    assert _fits(first, UsbIdentity(vid=0x0403, pid=0x6001))
    assert _fits(first, UsbIdentity(vid=0x0403, pid=0x6001, serial="A1"))
    assert not _fits(second, UsbIdentity(vid=0x0403, pid=0x6001, serial="A1"))
    assert _fits(second, UsbIdentity(vid=0x0403, pid=0x6001, location="1-1.3"))
    assert _fits(second, UsbIdentity(vid=0x0403, pid=0x6001, location="1-1.3:1.0"))
    assert not _fits(first, UsbIdentity(vid=0x0403, pid=0x6002))


def test_a_usb_adapter_that_is_not_there():
    with pytest.raises(BusGone, match=r"no USB serial port fffe:fffd serial 'X'; there"):
        find_usb("meter", UsbIdentity(vid=0xFFFE, pid=0xFFFD, serial="X"))
