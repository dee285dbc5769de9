"""The simulated buses as drivers see them, in one process and through the socket alike."""

import select
import threading

import pytest

from device_agent.errors import BusError, BusGone, BusHeld, BusTimeout, NoAnswer
from device_agent.testing import Board, SerialChip, SteppedClock
from device_agent.testing.board.medium import SLOW_S
from support.board_devices import BUSES, DEVICES, LIMIT_S, Port, PortConfig, arrived, opened

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


def test_a_closing_board_frees_what_is_stuck():
    with Board(BUSES, DEVICES) as board:
        bus = opened("i2c1", board)
        board.fault("i2c1", "stuck")
        errors: list[BaseException] = []

        def read() -> None:
            with pytest.raises(BusTimeout, match="i2c1 is stuck") as caught:
                bus.read_u16(0x48, 0x0F)
            errors.append(caught.value)

        thread = threading.Thread(target=read)
        thread.start()
        board.close()
        thread.join(LIMIT_S)
        assert len(errors) == 1
        bus.close()


def test_a_slow_bus_takes_its_time_and_a_fault_ends_by_itself():
    clock = SteppedClock()
    with Board(BUSES, DEVICES, clock=clock) as board:
        bus = opened("i2c1", board)
        board.fault("i2c1", "slow", for_s=1.0)
        bus.read_u16(0x48, 0x0F)
        assert clock.monotonic_s() == pytest.approx(1000 + SLOW_S)
        clock.step(1.0)
        before_s = clock.monotonic_s()
        bus.read_u16(0x48, 0x0F)
        assert clock.monotonic_s() == before_s
        bus.close()


def test_a_chip_that_lost_its_power_is_as_at_power_on(board, place):
    bus = opened("i2c1", place)
    bus.write_u16(0x48, 0x20, 0x1234)
    board.fault("i2c1", "unplug", device="climate")
    with pytest.raises(NoAnswer):
        bus.read_u16(0x48, 0x20)
    board.fault("i2c1", "replug", device="climate")
    assert bus.read_u16(0x48, 0x20) == 0
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
