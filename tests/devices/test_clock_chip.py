"""A clock chip tells the time while nobody else does, and is set when somebody does."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from device_agent.clock import EARLIEST_TRUE_MS
from device_agent.config import load
from device_agent.devices.clock_chip import SET_AGAIN_S, ClockChip
from device_agent.devices.context import Context
from device_agent.devices.dispatcher import Dispatcher
from device_agent.devices.hardware import Hardware
from device_agent.driver import Action, Argument, Driver, NoBus, Point, Sensor, Unit, Value
from device_agent.errors import DriverError
from device_agent.store.journal.journal import Journal
from device_agent.store.store_thread import StoreThread
from device_agent.testing import SteppedClock
from support.waiting import until_async

TRUE_S = EARLIEST_TRUE_MS // 1000 + 86_400
CONFIG = """
[agent]
name = "a"
[devices.chip]
driver = "chip"
every_s = 0.01
"""


class Chip(Sensor[Any, NoBus]):
    """Shows `shows`, epoch seconds or None after its battery was empty; `refused` set_time calls raise."""

    serves_as_clock = True
    points = (Point("time", Unit.SECOND, type="integer"),)
    actions = (Action("set_time", (Argument("time", Unit.SECOND),), moves=False),)
    shows: ClassVar[int | None] = None
    reads: ClassVar[int] = 0
    refused: ClassVar[int] = 0
    set_to: ClassVar[list[Value]] = []

    def read(self) -> dict[str, Value]:
        Chip.reads += 1
        return {"time": self.shows}

    def do(self, action: str, args: Mapping[str, Value]) -> None:
        assert action == "set_time"
        self.set_to.append(args["time"])
        if Chip.refused:
            Chip.refused -= 1
            raise DriverError("the chip did not take the time")
        Chip.shows = int(args["time"] or 0)


DRIVERS: dict[str, type[Driver[Any, Any]]] = {"chip": Chip}


@pytest.fixture
async def clock(tmp_path: Path) -> AsyncIterator[SteppedClock]:
    """The clock of a board that nobody has set, with the chip at work."""
    Chip.shows, Chip.refused, Chip.set_to = None, 0, []
    (tmp_path / "agent.toml").write_text(CONFIG)
    config = load(tmp_path / "agent.toml", load_driver=DRIVERS.__getitem__)
    clock = SteppedClock(now_ms=1000)
    clock.knows = False
    store = StoreThread()
    journal = Journal(tmp_path / "journal.db", store)
    await journal.open()
    context = Context({}, journal, clock)
    chip = ClockChip(context)
    hardware = Hardware(config, lambda *_: NoBus(), Dispatcher([chip]), clock, context.devices)
    hardware.start()
    yield clock
    await chip.close()
    await hardware.close()
    await journal.close()
    await store.close()


async def test_the_chip_tells_the_time_that_nobody_else_knows(clock: SteppedClock) -> None:
    Chip.shows = TRUE_S
    await until_async(clock.is_set)
    assert clock.source == "device"
    assert clock.now_ms() == TRUE_S * 1000 + 500  # on average half of the next second has gone by
    assert Chip.set_to == []


async def test_a_chip_that_lost_the_time_is_set_once_the_network_tells_it(clock: SteppedClock) -> None:
    clock.learn(TRUE_S * 1000, clock.monotonic_s(), "network")
    await until_async(lambda: Chip.shows)
    assert Chip.set_to == [TRUE_S]


async def test_a_chip_that_is_wrong_is_set_and_one_that_is_right_is_left_alone(clock: SteppedClock) -> None:
    clock.learn(TRUE_S * 1000, clock.monotonic_s(), "network")
    Chip.shows = TRUE_S - 3600
    await until_async(lambda: Chip.set_to)
    await until_async(lambda: Chip.shows == TRUE_S)
    clock.step(SET_AGAIN_S - 1)
    Chip.shows = clock.now_ms() // 1000
    clock.step(2)
    read = Chip.reads
    await until_async(lambda: Chip.reads > read + 2)
    assert Chip.set_to == [TRUE_S]


async def test_a_chip_that_refuses_is_asked_again_only_after_a_while(clock: SteppedClock) -> None:
    Chip.refused = 1
    clock.learn(TRUE_S * 1000, clock.monotonic_s(), "network")
    await until_async(lambda: Chip.set_to)
    read = Chip.reads
    await until_async(lambda: Chip.reads > read + 3)
    assert len(Chip.set_to) == 1
    clock.step(SET_AGAIN_S + 1)
    await until_async(lambda: Chip.shows)
    assert len(Chip.set_to) == 2
