"""Readings that can be trusted: calibrated, in range, and flagged when they are too old or too still."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import TypeAdapter

from device_agent.bus.config import BusConfig
from device_agent.bus.core import Bus
from device_agent.clock import SystemClock
from device_agent.config.calibration import interpolated
from device_agent.config.models import SafetyConfig
from device_agent.devices.bus_supervisor import BusSupervisor
from device_agent.devices.device import SAYS_NOTHING, Device
from device_agent.devices.reading_builder import ReadingBuilder
from device_agent.driver import ActuatorConfig, DriverConfig, Listener, Point, Sensor, SerialBus
from device_agent.errors import NoAnswer
from device_agent.records import Dated, Flag, Flagged, Reading, ReadingSubscriber
from device_agent.safety.conditions import Conditions
from device_agent.safety.emergency_stop import StopLine
from device_agent.testing.board import Board, SteppedClock, open_handle
from device_agent_drivers.bme280 import Bme280, Bme280Config
from device_agent_drivers.gpio_input import GpioInput, GpioInputConfig
from device_agent_drivers.pms5003 import Pms5003, Pms5003Config
from device_agent_drivers.serial_lines import SerialLines, SerialLinesConfig
from support.waiting import until_async

LIMIT_S = 10.0


class Probe(Sensor[DriverConfig, SerialBus]):
    points = (
        Point("level", low=0, high=100, still_s=60),
        Point("raw", low=-1, high=1),
        Point("wet", type="boolean"),
    )


class Talker(Listener[DriverConfig, SerialBus]):
    points = (Point("a"), Point("b"))
    default_stale_after_s = 10.0


def builder(driver: type[Any], clock: SteppedClock | None = None, **options: Any) -> ReadingBuilder:
    made = ReadingBuilder("probe", driver, DriverConfig(**options), clock or SteppedClock())
    made.staleness.begin(0.0)
    return made


# -- dated by the device -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("age_s", "at_ago_s", "flag"),
    [
        (0, 0, None),
        (5, 5, None),
        (3600, 3600, None),
        (-59, 0, None),  # its clock is a little ahead
        (-61, 0, "undated"),
        (3601, 0, "undated"),
        (None, 0, "undated"),
    ],
)
def test_a_time_that_the_device_tells_counts_as_far_as_it_can_be_true(
    age_s: float | None, at_ago_s: float, flag: str | None
) -> None:
    clock = SteppedClock(5000.0)
    made, now_ms = builder(Talker, clock, stale_after_s=0), clock.now_ms()
    said_ms = None if age_s is None else now_ms - age_s * 1000
    reading = made.measured(Dated({"a": 1, "b": None}, said_ms, max_age_s=3600), clock.monotonic_s())
    assert reading.at_ms == now_ms - at_ago_s * 1000
    assert reading.monotonic_s == 5000.0 - at_ago_s
    assert reading.flags.get("a") == flag
    assert "b" not in reading.flags, "what is no value has no time"
    assert not reading.past


def test_while_nobody_knows_the_time_the_device_cannot_be_judged() -> None:
    clock = SteppedClock(5000.0)
    clock.knows = False
    reading = builder(Talker, clock).measured(Dated({"a": 1, "b": 2}, 5.0), clock.monotonic_s())
    assert (reading.clock_set, reading.flags, reading.monotonic_s) == (False, {}, 5000.0)


def test_what_is_too_old_when_it_comes_is_of_the_past_and_makes_its_points_stale() -> None:
    clock = SteppedClock(5000.0)
    made, now_ms = builder(Talker, clock), clock.now_ms()
    made.staleness.begin(5000.0)
    assert not made.measured({"a": 1, "b": 2}, 5000.0).past
    late = made.measured(Dated({"a": 3}, now_ms - 10_000), 5000.0, None, {"a": 1, "b": 2})
    assert (late.past, late.at_ms, dict(late.values)) == (True, now_ms - 10_000, {"a": 3, "b": 2})
    assert late.flags == {"b": "stale"}, "the other point was not measured then"
    assert made.staleness.age(5000.0)
    assert made.staleness.stale == {"a"}
    again = made.measured(Dated({"a": 4}, now_ms - 9_000), 5000.0, None, {"a": 3, "b": 2})
    assert (again.past, again.flags, again.silence) == (False, {}, "ended")


# -- calibration -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "true"), [(0, 10), (5, 15), (10, 20), (15, 40), (20, 60), (-10, 0), (30, 100)]
)
def test_a_table_is_straight_lines_that_go_on_beyond_its_ends(value: float, true: float) -> None:
    assert interpolated([(0, 10), (10, 20), (20, 60)], value) == true


def test_bounds_follow_the_calibration() -> None:
    """A humidity of 100 % that reads half a percent low is no nonsense, and the card says the same range."""
    made = builder(Probe, offset={"level": 0.5}, calibration={"raw": [(-1, 20), (1, 4)]})
    reading = made.measured({"level": 100.0, "raw": 0.5, "wet": True}, 1.0)
    assert reading.values == {"level": 100.5, "raw": 8.0, "wet": True}
    assert not reading.flags
    assert (made.points["level"].low, made.points["level"].high) == (0.5, 100.5)
    assert (made.points["raw"].low, made.points["raw"].high) == (4, 20)
    reading = made.measured({"level": 100.1, "raw": float("nan"), "wet": Flagged(None, Flag.CHECKSUM)}, 2.0)
    assert set(reading.values.values()) == {None}
    assert reading.flags == {"level": "out_of_range", "raw": "out_of_range", "wet": "checksum"}


def test_a_counted_number_that_is_scaled_is_told_with_its_unit() -> None:
    config = GpioInputConfig(line=4, count=True, scale={"count": 0.0025}, unit={"count": "l"})
    made = ReadingBuilder("meter", GpioInput, config, SteppedClock())
    assert (made.points["count"].unit, made.points["count"].type) == ("l", "number")
    assert made.measured({"active": True, "count": 3, "rate": 0.0}, 1.0).values["count"] == 0.0075


@pytest.mark.parametrize("value", [10**309, b"\x01", "\ud800", [1], {"a": 1}, object()])
@pytest.mark.parametrize("options", [{}, {"scale": {"a": 2.0}}])
def test_what_no_event_can_carry_is_null(value: Any, options: dict[str, Any]) -> None:
    """Whatever a driver lets through, of any far end, goes no further."""
    reading = builder(Talker, **options).measured({"a": value, "b": 1}, 1.0)
    assert reading.values == {"a": None, "b": 1}
    assert reading.flags["a"] in (Flag.NO_ANSWER, Flag.OVERFLOW)


@pytest.mark.parametrize(
    ("measured", "told"),
    [
        (2.5e-8, 2.5e-8),
        (-1.23456789e-9, -1.23456789e-9),
        (-1.2345678901234e-9, -1.23457e-9),
        (52.2187242783, 52.2187242783),
        (-123.2187242783, -123.2187242783),
        (0.1 + 0.2, 0.3),
        (21.12345678901234, 21.123457),
        (0.0, 0.0),
        (5e-324, 5e-324),
        (1e300, 1e300),
    ],
)
def test_small_values_keep_their_digits(measured: float, told: float) -> None:
    talk = builder(Talker).measured({"a": measured, "b": 0}, 1.0)
    assert talk.values["a"] == told


# -- too still ---------------------------------------------------------------------------------------------


def flags_of(made: ReadingBuilder, values: list[float | None], every_s: float) -> list[Flag | None]:
    return [
        made.measured({"level": value, "raw": 0.5, "wet": True}, number * every_s).flags.get("level")
        for number, value in enumerate(values)
    ]


def test_what_never_changes_is_no_measurement() -> None:
    flags = flags_of(builder(Probe), [20.0] * 15, 6.0)
    assert flags == [None] * 10 + [Flag.FROZEN] * 5, "after 60 s, and not before"


def test_a_slow_beat_alone_freezes_nothing() -> None:
    flags = flags_of(builder(Probe), [20.0] * 12, 3600.0)
    assert flags == [None] * 9 + [Flag.FROZEN] * 3, "ten readings at least"


def test_the_last_digit_is_enough_to_be_alive() -> None:
    made = builder(Probe)
    assert set(flags_of(made, [20.0, 20.000001] * 20, 6.0)) == {None}
    reading = made.measured({"level": 20.0, "raw": 0.5, "wet": True}, 1e6)
    assert not reading.flags, "a boolean and a point without a limit may be still for ever"


def test_the_configuration_decides_by_point() -> None:
    assert set(flags_of(builder(Probe, frozen_after_s=0), [20.0] * 50, 6.0)) == {None}
    assert set(flags_of(builder(Probe, frozen_after_s={"level": 0}), [20.0] * 50, 6.0)) == {None}
    made = builder(Probe, frozen_after_s={"raw": 30})
    assert Flag.FROZEN in flags_of(made, [20.0] * 15, 6.0)
    assert made.staleness.frozen == {"level", "raw"}


# -- too old -----------------------------------------------------------------------------------------------


def test_silence_is_told_by_point_and_ends_with_the_next_word() -> None:
    made = builder(Talker)
    made.measured({"a": 1, "b": 2}, 5.0)
    news = made.measured({"a": 3}, 9.0, before={"a": 1, "b": 2})
    assert (news.values, news.flags, news.silence) == ({"a": 3, "b": 2}, {}, ""), "not in it is not too old"
    assert made.staleness.due_s() == 15.0
    assert not made.staleness.age(14.9)
    assert made.staleness.age(15.0)
    assert not made.staleness.age(15.1), "once"
    assert not made.staleness.silent
    reading = made.present({"a": 3, "b": 2})
    assert (reading.values, reading.flags) == ({"a": 3, "b": 2}, {"b": Flag.STALE})
    back = made.measured({"a": 3, "b": 2}, 20.0)
    assert (back.silence, back.flags) == ("ended", {})


def test_an_asked_device_is_never_stale() -> None:
    made = builder(Probe)
    assert made.staleness.due_s() is None
    assert not made.staleness.age(1e9)


# -- on a board --------------------------------------------------------------------------------------------


class Heard(ReadingSubscriber):
    """A sink that keeps all."""

    def __init__(self) -> None:
        self.readings: list[Reading] = []
        self.statuses: list[Any] = []
        self._news = asyncio.Event()

    def on_reading(self, reading: Reading) -> None:
        self.readings.append(reading)
        self._news.set()

    def on_status(self, status: Any) -> None:
        self.statuses.append(status)
        self._news.set()

    async def wait(self, fits: Callable[[Reading], Any]) -> Reading:
        async with asyncio.timeout(LIMIT_S):
            while not (found := [reading for reading in self.readings if fits(reading)]):
                self._news.clear()
                await self._news.wait()
        return found[0]

    async def wait_online(self) -> None:
        async with asyncio.timeout(LIMIT_S):
            while not [status for status in self.statuses if status.state == "online"]:
                self._news.clear()
                await self._news.wait()


class CountingClock(SystemClock):
    """Knows how often it was asked."""

    asked = 0

    def monotonic_s(self) -> float:
        self.asked += 1
        return super().monotonic_s()


@asynccontextmanager
async def at_work(
    driver: type[Any],
    config: DriverConfig,
    kind: str,
    clock: SystemClock | None = None,
    first: bytes | None = None,
    **bus: Any,
) -> AsyncIterator[Any]:
    bus_config: BusConfig = TypeAdapter(BusConfig).validate_python({"kind": kind, **bus})
    with Board({"bus": bus_config}, {"device": (driver, config)}) as board:
        clock, sink = clock or SystemClock(), Heard()
        safe_states = BusSupervisor(Bus("bus", open_handle("bus", bus_config, board=board)), clock)
        device = Device("device", driver, config, safe_states.bus, clock, sink)
        background = [asyncio.ensure_future(life.run()) for life in (safe_states, device)]
        try:
            if first is not None:
                await until_async(lambda: device.detail == SAYS_NOTHING, "it to be open")
                board.feed("bus", first)
            if first != b"":
                await sink.wait_online()
            yield board, device, sink
        finally:
            for life in background:
                life.cancel()
            await asyncio.wait(background)
            await safe_states.bus.close()
            safe_states.bus.stop()


@pytest.mark.parametrize("every_s", [0.05, None])
async def test_a_scale_that_fell_silent(every_s: float | None) -> None:
    config = SerialLinesConfig(
        bus="bus",
        pattern="W (?P<weight>[0-9.]+)",
        points={"weight": {"unit": "g"}},
        every_s=every_s,
        stale_after_s=0.3,
    )
    async with at_work(SerialLines, config, "serial", first=b"", port="simulated") as (board, device, sink):
        nothing = await sink.wait(lambda reading: reading.flags)
        assert (nothing.values, nothing.flags) == ({"weight": None}, {"weight": "stale"}), "from the start"
        with pytest.raises(NoAnswer, match="has said nothing yet"):
            await device.read_now()
        assert device.awaited, "nobody knows yet whether it is there"
        device.mark_unheard()
        assert not device.awaited, "now that is known, and told"
        board.feed("bus", b"\nW 12.5\n")
        fresh = await sink.wait(lambda reading: reading.values["weight"] == 12.5)
        assert (fresh.flags, fresh.silence) == ({}, "ended")
        old = await sink.wait(lambda reading: reading.values["weight"] == 12.5 and reading.flags)
        assert old.flags == {"weight": "stale"}
        assert abs(old.at_ms - fresh.at_ms) <= 2, "with the time at which it was measured"
        told = len(sink.readings)
        asked = await device.read_now()
        assert (asked.values, asked.flags) == ({"weight": 12.5}, {"weight": "stale"})
        assert abs(asked.at_ms - fresh.at_ms) <= 2
        await asyncio.sleep(0.2)
        assert len(sink.readings) == told, "once, and not again on each beat"
        board.feed("bus", b"\nW 12.5\n")
        await sink.wait(lambda reading: reading.silence == "ended" and reading is not fresh)
        assert not (await device.read_now()).flags
        assert sink.statuses[-1].state == "online", "silence is no loss of the device"


async def test_values_that_come_one_by_one_keep_their_own_age() -> None:
    """A door contact that also tells its battery: the battery's message says nothing about the door."""
    points = {"closed": {"type": "boolean"}, "battery": {"unit": "%"}}
    config = SerialLinesConfig(bus="bus", format="json", points=points, stale_after_s={"battery": 0.3})
    said = b'{"closed": true}\n{"battery": 52}\n'
    async with at_work(SerialLines, config, "serial", first=said, port="simulated") as (board, device, sink):
        both = await sink.wait(lambda reading: reading.values["battery"] == 52)
        assert (both.values["closed"], both.flags) == (True, {})
        needs_lid = ActuatorConfig(safe=0, only_while={"lid": {"closed": True}})
        pump = Device("pump", Probe, needs_lid, device.bus, SystemClock(), sink)
        conditions = Conditions({"lid": device, "pump": pump})
        conditions.check("pump")
        pressed_when_open = SafetyConfig(stop_device="lid", stop_point="closed", stop_active=False)
        stop_line = StopLine(pressed_when_open, {"lid": device})
        assert (stop_line.why_unreadable(), stop_line.is_active_now()) == ("", False)
        while not device.latest.flags:
            board.feed("bus", b'{"closed": true}\n')
            await asyncio.sleep(0.02)
        assert device.latest.flags == {"battery": Flag.STALE}, "by time, and it alone"
        conditions.check("pump")
        assert (stop_line.why_unreadable(), stop_line.is_active_now()) == ("", False)


async def test_silence_costs_nothing() -> None:
    """A beat on which there is nothing to tell is waited for, not spun for."""
    config = SerialLinesConfig(
        bus="bus",
        pattern="W (?P<weight>[0-9.]+)",
        points={"weight": {"unit": "g"}},
        every_s=0.05,
        stale_after_s=0.1,
    )
    clock = CountingClock()
    async with at_work(SerialLines, config, "serial", clock, b"\nW 1\n", port="simulated") as (_, _, sink):
        await sink.wait(lambda reading: reading.flags)
        before = clock.asked
        await asyncio.sleep(0.5)
        assert clock.asked - before < 100


async def test_a_sensor_that_speaks_by_itself_is_watched_unasked() -> None:
    config = Pms5003Config(bus="bus", stale_after_s=1.5)
    async with at_work(Pms5003, config, "serial", port="simulated") as (board, _, sink):
        await sink.wait(lambda reading: reading.values["pm10"] is not None and not reading.flags)
        board.fault("bus", "nack")
        old = await sink.wait(lambda reading: reading.flags.get("pm10") == "stale")
        assert old.values["pm10"] is not None
        assert set(old.flags.values()) == {"stale"}
        board.heal()
        await sink.wait(lambda reading: reading.silence == "ended")
    assert Pms5003.default_stale_after_s


async def test_a_frozen_chip_answers_and_is_not_believed() -> None:
    config = Bme280Config(bus="bus", every_s=0.02, frozen_after_s={"pressure": 0.3})
    async with at_work(Bme280, config, "i2c", device="simulated") as (board, device, sink):
        board.fault("bus", "frozen", device="device")
        board.set("device", temperature=35.0, pressure=990.0)
        frozen = await sink.wait(lambda reading: reading.flags)
        assert frozen.flags == {"pressure": "frozen"}
        assert frozen.values["pressure"] is not None, "it goes out, with its doubt"
        assert (await device.read_now()).flags == {"pressure": "frozen"}
        board.heal()
        await sink.wait(lambda reading: reading.values["temperature"] == pytest.approx(35, abs=0.1))
        assert not (await device.read_now()).flags
