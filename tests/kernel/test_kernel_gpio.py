"""GPIO through the kernel's character device."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from device_agent.bus.config import GpioBusConfig
from device_agent.bus.core import Bus, BusState
from device_agent.bus.gpio_gpiod import EDGES_MAX, GpiodGpio
from device_agent.errors import BusError, BusGone, BusHeld
from device_agent_drivers.gpio_input import GpioInput, GpioInputConfig
from device_agent_drivers.gpio_output import GpioOutput, GpioOutputConfig
from support.virtual_hardware import LIMIT_S, Rig, as_nobody, collected, until

LABEL = "pinctrl-bcm2711"


def config(chip: str = LABEL) -> GpioBusConfig:
    return GpioBusConfig(kind="gpio", chip=chip)


@pytest.fixture
def gpio(rig: Rig) -> Iterator[GpiodGpio]:
    gpio = GpiodGpio("pins", config())
    gpio.open()
    rig.gpio.set(17, 0)
    yield gpio
    gpio.close()
    if not rig.gpio.live():
        rig.gpio.plug()


def test_a_chip_is_found_by_label_and_by_path(rig):
    for wanted in (LABEL, rig.gpio.dev):
        gpio = GpiodGpio("pins", config(wanted))
        gpio.open()
        assert gpio.path == rig.gpio.dev
        gpio.close()
    with pytest.raises(BusGone, match=f"no GPIO chip is labelled 'pinctrl-x'; there are '{LABEL}'"):
        GpiodGpio("pins", config("pinctrl-x")).open()


def test_edges_carry_the_kernels_time(rig, gpio):
    line = gpio.input("GPIO17")
    began_s = time.monotonic()
    edges = []
    for level in (1, 0, 1):  # one by one: the simulated chip merges edges that come faster than its interrupt
        rig.gpio.set(17, level)
        edges += collected(line, bool)
    assert [edge.active for edge in edges] == [True, False, True]
    assert began_s <= edges[0].monotonic_s <= edges[1].monotonic_s <= edges[2].monotonic_s
    assert edges[2].monotonic_s <= time.monotonic()
    assert [edge.lost for edge in edges] == [0, 0, 0]
    assert line.read()
    assert list(line.drain()) == []


def test_active_low_turns_levels_and_edges_round(rig, gpio):
    rig.gpio.set(17, 1)
    line = gpio.input(17, active_low=True)
    assert not line.read()
    rig.gpio.set(17, 0)
    assert [edge.active for edge in collected(line, bool)] == [True]


def test_debounce_is_the_kernels(rig, gpio):
    line = gpio.input(17, debounce_s=0.5)
    for level in (1, 0, 1, 0, 1, 0, 1):
        rig.gpio.set(17, level)
        time.sleep(0.002)
    edges = collected(line, bool)
    rig.gpio.set(17, 0)
    edges += collected(line, bool)
    assert [edge.active for edge in edges] == [True, False]


def test_lost_edges_are_told_and_still_counted(rig, gpio):
    driver = GpioInput(GpioInputConfig(line=17, count=True), gpio)
    driver.open()
    source = driver.listen()
    pulses = EDGES_MAX // 2 + 100
    base = rig.gpio.path(17, "pull")
    with open(base, "w", buffering=1) as pull:
        for _ in range(pulses):
            pull.write("pull-up\n")
            time.sleep(0.001)
            pull.write("pull-down\n")
            time.sleep(0.001)
    edges = collected(source, lambda got: len(got) >= EDGES_MAX)
    seen = edges[0].lost + EDGES_MAX
    merged = 2 * pulses - seen  # by the simulated chip; the kernel never saw them
    assert edges[0].lost > 0
    assert merged >= 0
    for edge in edges:
        assert len(list(driver.feed(edge))) == 1
    assert driver.lost_edges == edges[0].lost
    assert abs(driver.present(time.monotonic())["count"] - seen / 2) <= 1 + merged
    driver.close()


def test_an_output_is_claimed_at_its_level(rig, gpio):
    output = GpioOutput(GpioOutputConfig(line=27, safe=False, active_low=True), gpio)
    output.open()
    assert rig.gpio.get(27) == 1
    assert output.write({"on": True}) == {"on": True}
    assert rig.gpio.get(27) == 0
    output.safe()
    assert rig.gpio.get(27) == 1
    output.close()


def test_another_descriptor_keeps_the_line_driven(rig, gpio):
    """What a guard process does: it holds a copy, so the level outlives the daemon's own claim."""
    output = gpio.output(27, active=True)
    copy = os.dup(output.fileno())
    output.close()
    assert rig.gpio.get(27) == 1
    os.close(copy)
    until(lambda: rig.gpio.get(27) == 0, "released line")


def test_a_held_line_names_its_holder(rig, gpio):
    line = gpio.input(17)
    with pytest.raises(BusHeld, match="line 17 is held by 'device-agent'"):
        GpioInput(GpioInputConfig(line=17), gpio).open()
    program = (
        "import gpiod, sys; r = gpiod.request_lines(sys.argv[1], consumer='other-tool', config={22: None});"
        "print(1, flush=True); input()"
    )
    command = [sys.executable, "-c", program, rig.gpio.dev]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(BusHeld, match="line GPIO22 is held by 'other-tool'"):
            gpio.output("GPIO22", active=False)
        other.communicate(b"\n", timeout=LIMIT_S)
    gpio.output("GPIO22", active=False).close()
    line.close()


def test_bad_lines_and_wishes(gpio):
    with pytest.raises(BusError, match="has no line 99; its lines are 0 to 53"):
        gpio.input(99)
    with pytest.raises(BusError, match="has no line 'GPIO99'"):
        gpio.input("GPIO99")


def test_a_removed_chip_is_told_and_comes_back_under_its_number(rig, gpio):
    node = rig.gpio.dev
    line, output = gpio.input(17), gpio.output(27, active=True)
    rig.gpio.unplug()
    with pytest.raises(BusGone, match="the GPIO chip is gone"):
        collected(line, lambda got: False)
    for use in (line.read, line.drain, output.read, lambda: output.write(True), lambda: gpio.input(22)):
        with pytest.raises(BusGone):
            use()
    with pytest.raises(BusGone):
        gpio.open()
    rig.gpio.plug()
    gpio.open()
    assert gpio.path == node
    again = gpio.input(17)
    rig.gpio.set(17, 1)
    assert [edge.active for edge in collected(again, bool)] == [True]
    with pytest.raises(BusGone, match="was released"):
        line.read()
    again.close()


def test_permission_names_the_group(rig):
    printed = as_nobody(f"""
from device_agent.bus.config import GpioBusConfig
from device_agent.bus.gpio_gpiod import GpiodGpio
for chip in ({rig.gpio.dev!r}, {LABEL!r}):
    try:
        GpiodGpio("pins", GpioBusConfig(kind="gpio", chip=chip)).open()
    except Exception as error:
        print(type(error).__name__, error)
""")
    assert printed.count("BusDenied") == 2, printed
    assert "add the user to its group" in printed


def test_claiming_and_releasing_leaks_nothing(gpio):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        gpio.input(17).close()
        held = gpio.output(27, active=False)
        with pytest.raises(BusHeld):
            gpio.output(27, active=True)
        assert held.read() is False
        gpio.close()
        gpio.open()
    assert len(os.listdir("/proc/self/fd")) <= before


async def test_edges_reach_the_event_loop_and_a_removed_chip_faults_the_bus(rig):
    import asyncio

    bus = Bus("pins", GpiodGpio("pins", config()))
    await bus.open()
    driver = GpioInput(GpioInputConfig(line=17), bus.handle)
    await bus.run(driver.open, LIMIT_S)
    source = await bus.run(driver.listen, LIMIT_S)
    loop = asyncio.get_running_loop()
    seen: list[object] = []
    arrived = asyncio.Event()

    def ready() -> None:
        try:
            seen.extend(values for edge in source.drain() for values in driver.feed(edge))
        except BusGone as error:
            loop.remove_reader(source.fileno())
            bus.fault(error)
        arrived.set()

    loop.add_reader(source.fileno(), ready)
    rig.gpio.set(17, 1)
    await asyncio.wait_for(arrived.wait(), LIMIT_S)
    assert seen == [{"active": True}]
    rig.gpio.unplug()
    await asyncio.wait_for(bus.until(BusState.FAULTED), LIMIT_S)
    await bus.close()
    bus.stop()
    rig.gpio.plug()
    await asyncio.to_thread(until, lambda: os.path.exists(rig.gpio.dev), "chip")
