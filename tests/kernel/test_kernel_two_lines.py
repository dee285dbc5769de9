"""Drivers of two GPIO lines on the kernel's character device: an encoder's quadrature, an echo's edges."""

import select
import threading
import time
from collections.abc import Iterator

import pytest

from device_agent.bus.config import GpioBusConfig
from device_agent.bus.gpio_gpiod import GpiodGpio
from device_agent.driver import Flagged, NoAnswer
from device_agent.errors import BusError
from device_agent_drivers.gpio_pwm import GpioPwm, GpioPwmConfig
from device_agent_drivers.hc_sr04 import HcSr04, HcSr04Config, distance
from device_agent_drivers.rotary_encoder import RotaryEncoder, RotaryEncoderConfig
from support.virtual_hardware import Rig, collected

A, B = 5, 6


@pytest.fixture
def gpio(rig: Rig) -> Iterator[GpiodGpio]:
    gpio = GpiodGpio("pins", GpioBusConfig(kind="gpio", chip="pinctrl-bcm2711"))
    gpio.open()
    for line in (A, B):
        rig.gpio.set(line, 0)
    yield gpio
    gpio.close()


def test_an_encoder_turns_there_and_back(rig, gpio):
    config = RotaryEncoderConfig(line_a=A, line_b=B, active_low=False, bias="as-is")
    driver = RotaryEncoder(config, gpio)
    driver.open()
    source = driver.listen()
    turn = [(A, 1), (B, 1), (A, 0), (B, 0)]
    there, back = turn * 2, [(line, 1 - level) for line, level in reversed(turn)]
    positions = []
    for line, level in there + back:
        rig.gpio.set(line, level)
        for chunk in collected(source, bool):
            positions += [values["position"] for values in driver.feed(chunk)]
    assert positions == [1, 2, 1]
    assert driver.lost_edges == 0
    source.close()
    driver.close()


def test_edges_of_both_lines_come_in_the_kernels_order(rig, gpio):
    """However late they are read: with two queues 272 of 500 steps were counted beside a busy thread."""
    config = RotaryEncoderConfig(line_a=A, line_b=B, active_low=False, bias="as-is")
    driver = RotaryEncoder(config, gpio)
    driver.open()
    source = driver.listen()
    turn = [(A, "up"), (B, "up"), (A, "down"), (B, "down")]
    steps = 100
    pulls = {line: open(rig.gpio.path(line, "pull"), "w", buffering=1) for line in (A, B)}  # noqa: SIM115
    ended = threading.Event()

    def turn_it() -> None:
        for line, direction in turn * steps:
            pulls[line].write(f"pull-{direction}\n")
            time.sleep(0.001)  # the simulated chip merges edges that come faster than its interrupt
        ended.set()

    turning = threading.Thread(target=turn_it)
    turning.start()
    edges = []
    while not ended.is_set() or not edges:
        sum(range(100_000))  # a busy neighbour
        edges += source.drain()
    turning.join()
    waiting = select.poll()
    waiting.register(source.fileno(), select.POLLIN)
    while waiting.poll(500):
        edges += source.drain()
    assert [edge.monotonic_s for edge in edges] == sorted(edge.monotonic_s for edge in edges)
    assert {edge.place for edge in edges} == {0, 1}
    positions = [values["position"] for edge in edges for values in driver.feed(edge)]
    if len(edges) == 4 * steps:
        assert positions == list(range(1, steps + 1))
    for pull in pulls.values():
        pull.close()
    source.close()
    driver.close()


def test_a_rangers_echo(rig, gpio):
    driver = HcSr04(HcSr04Config(trigger=A, echo=B), gpio)
    driver.open()
    driver.trigger()
    with pytest.raises(NoAnswer, match="5 and 6"):
        driver.read()
    driver.trigger()
    edges = []
    for level in (1, 0):
        rig.gpio.set(B, level)
        edges += collected(driver._echo, bool)
    metres = distance(edges, 20.0)
    width_s = edges[1].monotonic_s - edges[0].monotonic_s
    if not isinstance(metres, Flagged):  # the rig may be too slow for any distance
        assert metres == pytest.approx(width_s * 343.2 / 2, rel=0.001)
    driver.close()


def test_lines_alone_make_no_pwm(gpio):
    with pytest.raises(BusError, match="hardware PWM channel"):
        GpioPwm(GpioPwmConfig(line=A, safe=0), gpio).open()
