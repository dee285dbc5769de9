"""The second GPIO back end on gpiozero's own mock pins, which are a working fake of that library."""

import os
import threading
import time
from collections.abc import Iterator

import pytest
from gpiozero.pins.mock import MockFactory

from device_agent.bus.config import GpioBusConfig
from device_agent.bus.gpio import Edge
from device_agent.bus.gpio_debounce import Debouncer
from device_agent.bus.gpio_gpiozero import EDGES_MAX, GpiozeroGpio
from device_agent.bus.inbox import Inbox
from device_agent.errors import BusError, BusGone, BusHeld, PlaceRefused
from support.mosquitto import LIMIT_S, collected

CONFIG = GpioBusConfig(kind="gpio", chip="pinctrl-bcm2711", backend="gpiozero")


@pytest.fixture
def factory() -> MockFactory:
    return MockFactory()


@pytest.fixture
def gpio(factory: MockFactory) -> Iterator[GpiozeroGpio]:
    gpio = GpiozeroGpio("pins", CONFIG, factory=factory)
    gpio.open()
    yield gpio
    gpio.close()


def test_edges_with_times_and_order(factory, gpio):
    line = gpio.input(17)
    pin = factory.pin(17)
    began_s = time.monotonic()
    for _ in range(3):
        pin.drive_high()
        pin.drive_low()
    edges = collected(line, lambda got: len(got) == 6)
    assert [edge.active for edge in edges] == [True, False] * 3
    assert all(began_s - 1 <= edge.monotonic_s <= time.monotonic() for edge in edges)
    assert not line.read()


def test_active_low_and_pulls(factory, gpio):
    line = gpio.input("GPIO17", active_low=True, bias="pull-up")
    assert factory.pin(17).pull == "up"
    assert not line.read()
    factory.pin(17).drive_low()
    assert [edge.active for edge in collected(line, bool)] == [True]
    assert line.read()


def test_without_edges_nothing_is_queued(factory, gpio):
    line = gpio.input(17, edges=False)
    factory.pin(17).drive_high()
    assert list(line.drain()) == []
    assert line.read()


def test_a_change_counts_once_it_has_held(factory, gpio):
    line = gpio.input(17, debounce_s=0.05)
    pin = factory.pin(17)
    for _ in range(20):
        pin.drive_high()
        pin.drive_low()
    pin.drive_high()
    first = collected(line, bool)
    assert [edge.active for edge in first] == [True]
    pin.drive_low()
    pin.drive_high()  # back before it held: never happened
    pin.drive_low()
    second = collected(line, bool)
    assert [edge.active for edge in second] == [False]
    assert second[0].monotonic_s - first[0].monotonic_s >= 0.05


def test_lost_edges_are_counted(factory, gpio):
    line = gpio.input(17)
    pin = factory.pin(17)
    for _ in range(EDGES_MAX // 2 + 10):
        pin.drive_high()
        pin.drive_low()
    edges = line.drain()
    assert (len(edges), edges[0].lost, edges[1].lost) == (EDGES_MAX, 20, 0)
    pin.drive_high()
    assert line.drain()[0].lost == 0


def test_output_is_claimed_at_its_level(factory, gpio):
    output = gpio.output(27, active=True, active_low=True)
    pin = factory.pin(27)
    assert (pin.function, pin.state) == ("output", False)
    assert output.read()
    output.write(False)
    assert pin.state
    with pytest.raises(BusError, match="holds no descriptor"):
        output.fileno()


def test_conflicts_and_bad_lines(gpio):
    line = gpio.input(17)
    with pytest.raises(BusHeld, match="line GPIO17 is held"):
        gpio.output("GPIO17", active=False)
    line.close()
    line.close()
    gpio.output("GPIO17", active=False)
    with pytest.raises(PlaceRefused, match="99 is not a valid pin"):
        gpio.input(99)
    with pytest.raises(BusError, match="has no drive"):
        gpio.output(22, active=False, drive="open-drain")
    with pytest.raises(BusGone, match="was released"):
        line.read()


def test_reopening(factory, gpio):
    for _ in range(3):
        line = gpio.input(17)
        factory.pin(17).drive_high()
        assert [edge.active for edge in collected(line, bool)] == [True]
        gpio.close()
        with pytest.raises(BusGone):
            gpio.input(17)
        gpio.open()
    assert sum(thread.name == "bus-pins-watch" for thread in threading.enumerate()) == 0


def test_a_line_claimed_many_times_leaks_nothing(factory, gpio):
    gpio.input(17).close()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2000):  # one wrapper a claim would overflow the stack here
        gpio.input(17).close()
    line = gpio.input(17)
    factory.pin(17).drive_high()
    assert [edge.active for edge in collected(line, bool)] == [True]
    line.close()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_an_edge_under_way_while_closing_raises_nothing(factory, gpio):
    line = gpio.input(17)
    pin = factory.pin(17)
    call = pin._call_when_changed
    line.close()
    pin._when_changed = None
    call()  # as lgpio's thread does with what its queue still holds


def test_a_missing_pin_library_is_named():
    config = CONFIG.model_copy(update={"pin_factory": "rpigpio"})
    with pytest.raises(BusError, match="pin factory 'rpigpio' is not installed"):
        GpiozeroGpio("pins", config).open()


def test_a_chip_that_is_not_there():
    with pytest.raises(BusGone, match="no GPIO chip is labelled 'no-such-chip'"):
        GpiozeroGpio("pins", CONFIG.model_copy(update={"chip": "no-such-chip"})).open()


def test_a_dead_chip_is_reported():
    dead = threading.Event()

    def check() -> None:
        if dead.is_set():
            raise BusGone("the chip is gone")

    watch = Debouncer("watch", check)
    inbox: Inbox[Edge] = Inbox(10)
    watch.add(inbox, 0.0, False)
    dead.set()
    with pytest.raises(BusGone, match="the chip is gone"):
        collected(inbox, lambda got: False, LIMIT_S)
    watch.stop()
    inbox.close()
