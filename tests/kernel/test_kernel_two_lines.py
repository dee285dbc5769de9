"""Drivers of two GPIO lines on the kernel's character device: an encoder's quadrature, an echo's edges."""

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
