"""The second GPIO back end on lgpio and a real chip; a process each, as lgpio's thread lasts as long."""

import os
import subprocess
import sys
import textwrap

import pytest

from support.virtual_hardware import LIMIT_S, Rig

pytest.importorskip("lgpio", reason="lgpio is not installed: pip install device-agent[lgpio]")

PREPARE = """
import os, sys, threading, time
from support.virtual_hardware import collected, descriptors, find_rig
from device_agent.bus.config import GpioBusConfig
from device_agent.bus.gpio_gpiozero import GpiozeroGpio
from device_agent.errors import BusGone, BusHeld
rig = find_rig()
gpio = GpiozeroGpio("pins", GpioBusConfig(kind="gpio", chip="pinctrl-bcm2711", backend="gpiozero"))
"""


def passes(rig: Rig, tmp_path, program: str) -> None:
    """In a folder that is not writable for lgpio's FIFO unless LG_WD says otherwise."""
    environment = {
        **os.environ,
        "RUNTIME_DIRECTORY": str(tmp_path),
    }
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", PREPARE + textwrap.dedent(program)],
        capture_output=True, text=True, timeout=2 * LIMIT_S, check=False, cwd="/proc", env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_lines(rig, tmp_path):
    passes(
        rig,
        tmp_path,
        """
        gpio.open()
        rig.gpio.set(17, 0)
        line = gpio.input("GPIO17", bias="none")
        output = gpio.output(27, active=False, active_low=True)
        assert rig.gpio.get(27) == 1
        output.write(True)
        assert rig.gpio.get(27) == 0 and output.read()
        rig.gpio.set(17, 1)
        (edge,) = collected(line, bool)
        assert edge.active and abs(edge.monotonic_s - time.monotonic()) < 5
        assert line.read()
        slow = gpio.input(22, debounce_s=0.5)
        for level in (1, 0, 1, 0, 1):
            rig.gpio.set(22, level)
            time.sleep(0.002)
        assert [edge.active for edge in collected(slow, bool)] == [True]
        gpio.close()
        assert not [t.name for t in threading.enumerate() if t.name.startswith("bus-")]
        """,
    )


def test_an_output_never_passes_through_the_wrong_level(rig, tmp_path):
    """gpiozero alone claims an output low and sets it high afterwards: a relay that is active low clicks."""
    passes(
        rig,
        tmp_path,
        """
        import gpiod
        gpio.open()
        rig.gpio.set(27, 1)
        seen = []
        stop = threading.Event()
        def watch():
            while not stop.is_set():
                seen.append(rig.gpio.get(27))
        thread = threading.Thread(target=watch); thread.start()
        for _ in range(50):
            gpio.output(27, active=True).close()
        stop.set(); thread.join()
        assert seen and all(seen), seen.count(0)
        gpio.close()
        """,
    )


def test_a_removed_chip_is_told_and_nothing_spins(rig, tmp_path):
    passes(
        rig,
        tmp_path,
        """
        gpio.open()
        line, output = gpio.input(17), gpio.output(27, active=True)
        rig.gpio.unplug()
        try:
            collected(line, lambda got: False)
        except BusGone as error:
            assert "is gone" in str(error), error
        for use in (line.read, output.read, lambda: output.write(False)):
            try:
                use()
            except BusGone:
                continue
            raise SystemExit("a removed chip answered")
        gpio.close()
        used_s = time.process_time()
        time.sleep(1.0)
        assert time.process_time() - used_s < 0.5, "still spinning"
        assert not [name for name in descriptors() if "gpiochip" in name], descriptors()
        rig.gpio.plug()
        gpio.open()
        line = gpio.input(17)
        rig.gpio.set(17, 0); time.sleep(0.01); rig.gpio.set(17, 1)
        collected(line, lambda got: any(edge.active for edge in got))
        gpio.close()
        """,
    )


GUARDED = """
from device_agent.bus.gpio_gpiod import GpiodGpio
from device_agent.guard.actions import carry_out

def act(recipe):
    return {"kind": recipe.kind, **recipe.members}
"""


def test_the_guard_keeps_a_line_of_lgpio(rig, tmp_path):
    """The library tells nobody its descriptor; a duplicate of it drives the line when all else is gone."""
    passes(
        rig,
        tmp_path,
        GUARDED
        + textwrap.dedent("""
        gpio.open()
        lamp = gpio.output(22, active=True)
        valve = gpio.output(27, active=False, active_low=True)
        heater = gpio.pwm(24, duty=0, frequency_hz=200)
        kept = {22: lamp.recipe(True), 27: valve.recipe(False), 24: heater.recipes(0.0, 200.0)[0]}
        lamp.write(False); valve.write(True)
        assert (rig.gpio.get(22), rig.gpio.get(27)) == (0, 0)
        heater.write(0.5, 200.0)
        for recipe in kept.values():
            assert carry_out(act(recipe), recipe.fd) == recipe.fd
        assert (rig.gpio.get(22), rig.gpio.get(27)) == (1, 1)
        gpio.close()
        carry_out(act(kept[24]), kept[24].fd)  # until now a thread of the library's was switching it
        # Its owner has gone: the levels are still driven, and nobody else gets the lines.
        assert [rig.gpio.get(line) for line in kept] == [1, 1, 0]
        other = GpiodGpio("others", GpioBusConfig(kind="gpio", chip="pinctrl-bcm2711"))
        other.open()
        for line, recipe in kept.items():
            try:
                other.output(line, active=False)
                raise SystemExit(f"line {line} was free")
            except BusHeld:
                recipe.close()
            other.output(line, active=False).close()
        other.close()
        # And the library gets them back after the guard has let go.
        gpio.open()
        assert gpio.output(22, active=True).read()
        gpio.close()
        """),
    )


def test_the_guard_claims_what_nobody_holds(rig, tmp_path):
    """For pin factories that write the chip's registers."""
    passes(
        rig,
        tmp_path,
        GUARDED
        + textwrap.dedent("""
        from device_agent.bus.gpio_gpiozero import LineHold
        from device_agent.bus.gpio_gpiod import find_chip
        path = find_chip("pins", "pinctrl-bcm2711")
        for level in (True, False):
            recipe = LineHold(path, 27, -1).recipe(level, "here")
            fd = carry_out(act(recipe), -1)
            assert fd >= 0 and rig.gpio.get(27) == int(level)
            assert carry_out(act(recipe), fd) == fd
            os.close(fd)
        """),
    )
