"""The simulated buses as drivers see them, in one process and through the socket alike."""

import select
import threading
from collections.abc import Iterator
from typing import Literal

import pytest

from device_agent.bus.config import GpioBusConfig, I2cBusConfig, MqttBusConfig, SerialBusConfig
from device_agent.driver import Actuator, DriverConfig, GpioBus, I2cBus, Listener, MqttBus, Sensor, SerialBus
from device_agent.errors import BusError, BusGone, BusHeld, NoAnswer
from device_agent.testing import Board, Quantity, RegisterChip, SerialChip, SteppedClock, open_handle
from device_agent.testing.board import attach_output

LIMIT_S = 10.0


class ThermometerConfig(DriverConfig):
    driver: Literal["thermometer"] = "thermometer"
    address: int = 0x48


class Thermometer(Sensor[ThermometerConfig, I2cBus]):
    simulator = lambda config: RegisterChip(  # noqa: E731
        {0x0F: b"\x01\x17"},
        {
            "temperature": Quantity(
                0x00, lambda value: round(value * 128).to_bytes(2, "big", signed=True), 25.0
            )
        },
    )


class ContactConfig(DriverConfig):
    driver: Literal["contact"] = "contact"
    line: int = 17
    active_low: bool = False


class Contact(Listener[ContactConfig, GpioBus]):
    @classmethod
    def claims(cls, config: ContactConfig) -> tuple[str, ...]:
        return (f"line {config.line}",)


class Relay(Actuator[ContactConfig, GpioBus]):
    pass


class Echo(SerialChip):
    def receive(self, data: bytes) -> None:
        self.say(data.upper())


class PortConfig(DriverConfig):
    driver: Literal["port"] = "port"


class Port(Listener[PortConfig, SerialBus]):
    simulator = lambda config: Echo()  # noqa: E731


class Topic(Listener[PortConfig, MqttBus]):
    pass


BUSES = {
    "i2c1": I2cBusConfig(kind="i2c", device="/dev/i2c-1"),
    "pins": GpioBusConfig(kind="gpio", chip="pinctrl-bcm2835"),
    "meter": SerialBusConfig(kind="serial", port="/dev/ttyUSB0"),
    "broker": MqttBusConfig(kind="mqtt", host="localhost"),
}
DEVICES = {
    "climate": (Thermometer, ThermometerConfig(bus="i2c1")),
    "door": (Contact, ContactConfig(bus="pins", active_low=True)),
    "valve": (Relay, ContactConfig(bus="pins", line=27)),
    "echo": (Port, PortConfig(bus="meter")),
    "tank": (Topic, PortConfig(bus="broker")),
}


@pytest.fixture
def board() -> Iterator[Board]:
    with Board(BUSES, DEVICES) as board:
        yield board


@pytest.fixture(params=["direct", "socket"])
def place(request: pytest.FixtureRequest, board: Board, tmp_path) -> Iterator:
    if request.param == "direct":
        yield board
        return
    from device_agent.testing.board.server import BoardServer

    with BoardServer(board, tmp_path / "board.sock") as server:
        yield server.path


def opened(name: str, place, by: str = "daemon"):
    handle = open_handle(name, BUSES[name], board=place, by=by)
    handle.open()
    return handle


def arrived(source, count: int) -> list:
    """The next `count` chunks of a source."""
    chunks: list = []
    while len(chunks) < count:
        assert select.select([source.fileno()], [], [], LIMIT_S)[0], f"{len(chunks)} of {count} arrived"
        chunks.extend(source.drain())
    return chunks


def levels(board: Board, line: int) -> list[tuple[int, str]]:
    return [(entry["level"], entry["by"]) for entry in board.record.entries if entry.get("line") == line]


# -- I2C --------------------------------------------------------------------------------------------------


def test_i2c_reads_what_the_chip_senses(board, place):
    bus = opened("i2c1", place)
    assert bus.read_u16(0x48, 0x0F) == 0x117
    board.set("climate", temperature=-40.0)
    assert bus.read_s16(0x48, 0x00) / 128 == -40.0
    assert bus.present(0x48)
    assert not bus.present(0x49)
    with pytest.raises(NoAnswer, match=r"0x49 on bus i2c1"):
        bus.read(0x49, 0, 1)
    bus.close()
    bus.close()
    with pytest.raises(BusGone, match="not open"):
        bus.read(0x48, 0, 1)


def test_unplugged_bus_is_dead_until_it_is_opened_again(board, place):
    bus = opened("i2c1", place)
    board.fault("i2c1", "unplug")
    with pytest.raises(BusGone, match="unplugged"):
        bus.read(0x48, 0, 1)
    with pytest.raises(BusGone, match="unplugged"):
        opened("i2c1", place)
    board.fault("i2c1", "replug")
    with pytest.raises(BusGone, match="open it again"):
        bus.read(0x48, 0, 1)
    bus.open()
    assert bus.read_u16(0x48, 0x0F) == 0x117
    bus.close()


def test_one_device_can_fall_silent(board, place):
    bus = opened("i2c1", place)
    board.fault("i2c1", "nack", device="climate")
    with pytest.raises(NoAnswer):
        bus.read(0x48, 0, 1)
    board.heal()
    assert bus.read_u16(0x48, 0x0F) == 0x117
    bus.close()


def test_stuck_call_returns_when_healed(board, place):
    bus = opened("i2c1", place)
    board.fault("i2c1", "stuck")
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(bus.read_u16(0x48, 0x0F)))
    thread.start()
    thread.join(0.1)
    assert thread.is_alive()
    board.heal("i2c1")
    thread.join(LIMIT_S)
    assert results == [0x117]
    bus.close()


def test_corrupt_and_frozen_i2c(board, place):
    bus = opened("i2c1", place)
    board.fault("i2c1", "corrupt")
    assert bus.read_u16(0x48, 0x0F) != 0x117
    board.heal()
    board.fault("i2c1", "frozen", device="climate")
    board.set("climate", temperature=30.0)
    assert bus.read_s16(0x48, 0x00) / 128 == 25.0
    board.heal()
    assert bus.read_s16(0x48, 0x00) / 128 == 30.0
    bus.close()


# -- GPIO -------------------------------------------------------------------------------------------------


def test_output_claims_level_with_direction_and_goes_to_its_pull(board, place):
    bus = opened("pins", place)
    relay = bus.output(27, active=False, active_low=True)
    assert relay.read() is False
    relay.write(True)
    assert relay.read() is True
    relay.write(True)
    relay.write(False)
    relay.close()
    relay.close()
    assert levels(board, 27) == [(1, "daemon"), (0, "daemon"), (1, "daemon"), (0, "reset")]
    assert all(set(entry) == {"t", "bus", "line", "level", "by"} for entry in board.record.entries)
    bus.output("GPIO27", active=True).close()
    bus.close()


def test_held_line_is_refused_with_the_holder(board, place):
    bus, other = opened("pins", place), opened("pins", place, by="guard")
    relay = bus.output(27, active=True)
    with pytest.raises(BusHeld, match="line 27 of bus pins is held by daemon"):
        other.output(27, active=False)
    with pytest.raises(BusError, match="no line 'LED'"):
        other.input("LED")
    relay.close()
    other.output(27, active=False).close()
    bus.close()
    other.close()


def test_shared_claim_stays_driven_until_the_last_holder_lets_go(board, place):
    bus = opened("pins", place)
    relay = bus.output(27, active=True)
    guard = attach_output(relay.claim, board=place, by="guard")
    relay.close()
    assert levels(board, 27) == [(1, "daemon")]
    guard.write(False)
    guard.write(True)
    assert guard.read() is True
    guard.close()
    assert levels(board, 27)[1:] == [(0, "guard"), (1, "guard"), (0, "reset")]
    with pytest.raises(BusGone, match="released"):
        attach_output(relay.claim, board=place, by="guard")
    bus.close()


def test_edges_come_with_their_time_and_logical_level(board, place):
    bus = opened("pins", place)
    door = bus.input(17, active_low=True, bias="pull-up")
    assert door.read() is False
    board.pin("pins", 17, False)
    board.pin("pins", 17, True)
    edges = arrived(door, 2)
    assert [edge.active for edge in edges] == [True, False]
    stamps = [entry["t"] for entry in board.record.entries if entry["by"] == "stimulus"]
    assert [edge.monotonic_s for edge in edges] == stamps
    door.close()
    door.close()
    bus.close()


def test_a_burst_of_edges_arrives_whole(board, place):
    bus = opened("pins", place)
    line = bus.input(17)
    for count in range(3000):
        board.pin("pins", 17, count % 2 == 0)
    edges = arrived(line, 3000)
    assert [edge.active for edge in edges] == [True, False] * 1500
    assert sum(edge.lost for edge in edges) == 0
    bus.close()
    line.close()


def test_edges_beyond_the_buffer_are_counted(board):
    bus = opened("pins", board)
    line = bus.input(17)
    for count in range(5000):
        board.pin("pins", 17, count % 2 == 0)
    edges = line.drain()
    assert len(edges) + edges[0].lost == 5000
    line.close()
    bus.close()


def test_unplugged_chip_ends_its_lines(board, place):
    bus = opened("pins", place)
    line, relay = bus.input(17), bus.output(27, active=True)
    board.fault("pins", "unplug")
    assert select.select([line.fileno()], [], [], LIMIT_S)[0]
    with pytest.raises(BusGone, match="unplugged"):
        line.drain()
    with pytest.raises(BusGone):
        relay.write(False)
    board.fault("pins", "replug")
    with pytest.raises(BusGone):
        bus.input(17)
    for part in (line, relay, bus):
        part.close()
    bus.open()
    bus.input(17).close()
    bus.close()


def test_debounce_counts_a_level_that_held():
    clock = SteppedClock()
    with Board(BUSES, DEVICES, clock=clock) as board:
        bus = opened("pins", board)
        door = bus.input(17, debounce_s=0.02)
        for level in (True, False, True):
            board.pin("pins", 17, level)
            clock.step(0.019)
        assert door.drain() == []
        assert door.read() is False
        clock.step(0.001)
        (edge,) = door.drain()
        assert (edge.active, door.read()) == (True, True)
        assert edge.monotonic_s == pytest.approx(1000 + 0.038 + 0.02)
        board.pin("pins", 17, False)
        clock.step(0.01)
        board.pin("pins", 17, True)
        clock.step(1)
        assert door.drain() == [], "a pulse shorter than the period is none"
        door.close()
        bus.close()


def test_noise_bounces_and_debounce_hides_it():
    clock = SteppedClock()
    with Board(BUSES, DEVICES, clock=clock) as board:
        bus = opened("pins", board)
        raw, quiet = bus.input(17), bus.input(18, debounce_s=0.005)
        board.fault("pins", "noise")
        board.pin("pins", 17, True)
        board.pin("pins", 18, True)
        clock.step(1)
        assert [edge.active for edge in raw.drain()] == [True, False, True, False, True]
        assert [edge.active for edge in quiet.drain()] == [True]
        for part in (raw, quiet, bus):
            part.close()


def test_contact_without_simulator_is_set_by_name(board, place):
    bus = opened("pins", place)
    door = bus.input(17, active_low=True, bias="pull-up")
    board.set("door", active=True)
    assert [edge.active for edge in arrived(door, 1)] == [True]
    assert door.read() is True
    door.close()
    bus.close()


def test_open_drain_lets_the_far_end_pull(board, place):
    bus = opened("pins", place)
    line = bus.output(5, active=True, drive="open-drain")
    assert line.read() is True
    board.pin("pins", 5, False)
    assert line.read() is False
    line.close()
    bus.close()


# -- serial -----------------------------------------------------------------------------------------------


def test_serial_asked(board, place):
    port = opened("meter", place)
    port.write(b"hello\n")
    assert port.read(6, LIMIT_S) == b"HELLO\n"
    assert port.read(1, 0.01) == b""
    assert board.sent("meter") == b"hello\n"
    port.write(b"late")
    port.discard_input()
    assert port.read(4, 0.01) == b""
    with pytest.raises(BusHeld, match="held by daemon"):
        opened("meter", place)
    port.close()
    assert not board.feed("meter", b"nobody hears"), "lost, as on a closed port"


def test_serial_told(board, place):
    port = opened("meter", place)
    source = port.listen()
    assert board.feed("meter", b"W 12.5\n")
    assert b"".join(arrived(source, 1)) == b"W 12.5\n"
    board.fault("meter", "unplug", for_s=0.05)
    assert select.select([source.fileno()], [], [], LIMIT_S)[0]
    with pytest.raises(BusGone):
        source.drain()
    source.close()
    port.close()
    with board.lock:
        assert board.wait(lambda: not board.medium("meter").faults, LIMIT_S), "it comes back by itself"
    port.open()
    source = port.listen()
    board.fault("meter", "corrupt")
    board.feed("meter", b"W 12.5\n")
    assert b"".join(arrived(source, 1)) != b"W 12.5\n"
    source.close()
    port.close()


def test_serial_silence_and_noise(board, place):
    port = opened("meter", place)
    board.fault("meter", "nack")
    port.write(b"anybody?")
    assert port.read(1, 0.01) == b""
    board.heal()
    board.fault("meter", "noise")
    port.write(b"a" * 200)
    assert port.read(400, 0.05) != b"A" * 200
    port.close()


def test_waiting_on_a_stepped_clock_makes_time_pass():
    class Ticker(Port):
        simulator = lambda config: _Tick(every_s=5.0)  # noqa: E731

    clock = SteppedClock()
    with Board(BUSES, {"ticker": (Ticker, PortConfig(bus="meter"))}, clock=clock) as board:
        port = opened("meter", board)
        assert port.read(4, 60.0) == b"tick"
        assert clock.monotonic_s() == 1005.0
        assert port.read(8, 7.0) == b"tick"
        assert clock.monotonic_s() == 1012.0
        port.close()


class _Tick(SerialChip):
    def report(self) -> bytes:
        return b"tick"


# -- MQTT -------------------------------------------------------------------------------------------------


def test_mqtt_filters_and_retained_messages(board, place):
    bus = opened("broker", place)
    board.say("broker", "tank/1/level", b"7", retain=True)
    source = bus.subscribe(("tank/+/level", "alarm/#"))
    bus.publish("alarm/fire/hall", b"now")
    bus.publish("tank/level", b"no")
    board.say("broker", "tank/2/level", b"8")
    messages = arrived(source, 3)
    assert [(m.topic, m.payload, m.retained) for m in messages] == [
        ("tank/1/level", b"7", True),
        ("alarm/fire/hall", b"now", False),
        ("tank/2/level", b"8", False),
    ]
    assert board.published("broker")[0] == ("alarm/fire/hall", b"now")
    with pytest.raises(BusError, match="not one to publish to"):
        bus.publish("tank/#", b"")
    board.fault("broker", "unplug")
    assert select.select([source.fileno()], [], [], LIMIT_S)[0]
    with pytest.raises(BusGone):
        source.drain()
    source.close()
    bus.close()


def test_a_fault_that_makes_no_sense_is_refused(board):
    with pytest.raises(ValueError, match="gpio cannot be 'nack'; pins knows: unplug"):
        board.fault("pins", "nack")
    with pytest.raises(ValueError, match="there is no bus 'spi0'"):
        board.fault("spi0", "unplug")
    with pytest.raises(ValueError, match="there is no device 'roof'"):
        board.set("roof", open=True)


def test_no_board_is_a_bus_that_has_gone(tmp_path):
    with pytest.raises(BusGone, match="no simulated board answers"):
        opened("i2c1", tmp_path / "none.sock")
