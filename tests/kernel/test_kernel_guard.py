"""The guard on a real kernel: a daemon dies with its lines, chips and a serial far end away from safe."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from device_agent.bus.config import GpioBusConfig
from device_agent.bus.gpio_gpiod import GpiodGpio
from device_agent.errors import BusHeld
from device_agent.guard.actions import carry_out, is_at
from device_agent.operate.control_socket import ask
from support.processes import json_lines
from support.virtual_hardware import LIMIT_S, Rig, until

LABEL = "pinctrl-bcm2711"
VALVE, LAMP, BUTTON = 27, 22, 17
TRACING = Path("/sys/kernel/tracing")
# PCA9685: the four registers of channel 0, on or off for the whole of the time
CHIP, CHANNEL_0 = 0x48, 0x06
ON, OFF = bytes((0, 0x10, 0, 0)), bytes((0, 0, 0, 0x10))
START_LIMIT_S = 3 * LIMIT_S
ROUNDS = 4
CGROUP = Path("/sys/fs/cgroup")

CONFIG = """
[agent]
name = "guarded"
[network]
cdm_url = "http://127.0.0.1:9"
[state]
directory = "{folder}/state"
[safety]
guard_timeout_s = {timeout_s}
[buses.pins]
kind = "gpio"
chip = "{label}"
[buses.plain]
kind = "i2c"
device = "/dev/i2c-{plain}"
[buses.smbus]
kind = "i2c"
device = "/dev/i2c-{smbus}"
[buses.meter]
kind = "serial"
port = "{port}"
[devices.valve]
driver = "gpio-output"
bus = "pins"
line = 27
active_low = true
safe = false
every_s = 0.5
[devices.lamp]
driver = "gpio-output"
bus = "pins"
line = 22
safe = true
every_s = 0.5
[devices.relays]
driver = "pca9685"
bus = "plain"
address = 0x48
channels = ["ch0"]
safe = 0.0
[devices.stubs]
driver = "pca9685"
bus = "smbus"
address = 0x48
channels = ["ch0"]
safe = 0.0
[devices.scale]
driver = "serial-lines"
bus = "meter"
format = "csv"
columns = ["weight"]
command = "SP {{setpoint}}\\n"
[devices.scale.points]
weight = {{ unit = "g" }}
setpoint = {{ unit = "g", write = true, safe = 0 }}
"""

STOP = """
[devices.button]
driver = "gpio-input"
bus = "pins"
line = 17
bias = "pull-up"
active_low = true
"""

AWAY = {
    "valve": {"on": True},
    "lamp": {"on": False},
    "relays": {"ch0": 1.0},
    "stubs": {"ch0": 1.0},
    "scale": {"setpoint": 250},
}


class Bench:
    """The daemon on this machine's buses."""

    def __init__(self, rig: Rig, folder: Path, timeout_s: float = 30.0, *, stop: bool = False) -> None:
        self.rig = rig
        self.folder = folder
        self.far_end = rig.far_end("usb")
        self.config = folder / "agent.toml"
        text = CONFIG.format(
            folder=folder,
            timeout_s=timeout_s,
            label=LABEL,
            plain=rig.i2c.bus,
            smbus=rig.smbus.bus,
            port=rig.port("usb"),
        )
        if stop:
            text = text.replace("[safety]\n", '[safety]\nstop_device = "button"\n') + STOP
            rig.gpio.set(BUTTON, 1)
        self.config.write_text(text)
        rig.i2c.present(CHIP)
        for kind in (rig.i2c, rig.smbus):
            kind.set(CHIP, 0x00, [0] * 0xFF)
        self.log_path = folder / "daemon.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._heard = b""

    def start(self, *before: str) -> None:
        command = [*before, sys.executable, "-m", "device_agent", "run", "--log", "json"]
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--config", self.config],
                env={**os.environ, "BLOCKS_API_KEY": "bk_device"},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        until(self._online, "daemon with every device online", START_LIMIT_S)

    def _online(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log_path.read_text()
        try:
            return all(device["state"] == "online" for device in self.ask("status")["devices"])
        except OSError:
            return False

    def ask(self, op: str, **members: Any) -> Any:
        return ask(self.folder / "state" / "run" / "control.sock", {"op": op, **members}, LIMIT_S)["result"]

    def drive(self) -> None:
        for name, values in AWAY.items():
            answer = self.ask("set", device=name, values=values)
            assert answer["state"] == "done", answer
        assert (self.rig.gpio.get(VALVE), self.rig.gpio.get(LAMP)) == (0, 0)
        assert [kind.get(CHIP, CHANNEL_0, 4) for kind in (self.rig.i2c, self.rig.smbus)] == [ON, ON]
        until(lambda: b"SP 250" in self.heard(), "the command at the far end")

    def heard(self) -> bytes:
        self._heard += self.far_end.read(4096, 0.01) or b""
        return self._heard

    def guard(self) -> int:
        return next(
            int(event["pid"]) for event in json_lines(self.log_path) if event["event"] == "guard_started"
        )

    def signal(self, number: int) -> float:
        assert self.process is not None
        began_s = time.monotonic()
        self.process.send_signal(number)
        return began_s

    def lines_safe(self) -> bool:
        return self.rig.gpio.get(VALVE) == 1 and self.rig.gpio.get(LAMP) == 1

    def wait_all_safe(self, began_s: float, what: str) -> None:
        until(self.lines_safe, "lines at safe")
        print(f"{what}: lines safe {(time.monotonic() - began_s) * 1000:.1f} ms later", end="")
        until(lambda: self.rig.i2c.get(CHIP, CHANNEL_0, 4) == OFF, "chip at safe")
        until(lambda: self.rig.smbus.get(CHIP, CHANNEL_0, 4) == OFF, "chip on the SMBus at safe")
        until(lambda: self.heard().endswith(b"SP 0\n"), "the safe command at the far end")
        print(f", all after {(time.monotonic() - began_s) * 1000:.1f} ms")

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(LIMIT_S)
        self.far_end.close()


@pytest.fixture
def bench(rig: Rig, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(rig, tmp_path)
    try:
        bench.start()
        guard = bench.guard()
        yield bench
    finally:
        bench.end()
    if os.path.exists(f"/proc/{guard}"):
        os.kill(guard, signal.SIGTERM)
    until(lambda: not os.path.exists(f"/proc/{guard}"), "the guard's end")


def claim(line: int) -> None:
    gpio = GpiodGpio("pins", GpioBusConfig(kind="gpio", chip=LABEL))
    gpio.open()
    try:
        gpio.output(line, active=False)
    finally:
        gpio.close()


def lines_held(pid: int, *what: str) -> int:
    held = 0
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            held += os.readlink(f"/proc/{pid}/fd/{number}").startswith(("anon_inode:gpio-line", *what))
        except OSError:
            continue  # closed meanwhile
    return held


def memory_kb(pid: int) -> dict[str, int]:
    fields = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return {name.rstrip(":"): int(size) for name, size, _ in fields}


@pytest.mark.parametrize("active_low", [False, True])
def test_the_guard_claims_a_line_anew_as_the_daemon_had_it(rig, active_low):
    gpio = GpiodGpio("pins", GpioBusConfig(kind="gpio", chip=LABEL))
    gpio.open()
    recipe = gpio.output(VALVE, active=False, active_low=active_low).recipe(True)
    action = {"kind": recipe.kind, **recipe.members}
    with pytest.raises(OSError, match="busy"):
        carry_out(action, -1)
    gpio.close()
    recipe.close()
    fd = carry_out(action, -1)
    assert rig.gpio.get(VALVE) == (not active_low)
    assert carry_out({**action, "active": False}, fd) == fd
    assert rig.gpio.get(VALVE) == active_low
    os.close(fd)


def test_the_guard_sees_an_input_and_takes_no_edge_of_it(rig):
    gpio = GpiodGpio("pins", GpioBusConfig(kind="gpio", chip=LABEL))
    gpio.open()
    rig.gpio.set(17, 1)
    button = gpio.input(17, active_low=True)
    recipe = button.watched(True)
    assert not is_at({"kind": recipe.kind, **recipe.members}, recipe.fd)
    rig.gpio.set(17, 0)
    until(lambda: is_at({"kind": recipe.kind, **recipe.members}, recipe.fd), "the contact")
    edges = until(button.drain, "the edge")
    assert [edge.active for edge in edges] == [True]
    recipe.close()
    gpio.close()


def test_a_killed_daemons_lines_chips_and_ports_are_safe(bench):
    bench.drive()
    memory = memory_kb(bench.guard())
    print(f"guard: {memory['Rss']} kB resident, {memory['Anonymous']} kB of its own")
    bench.wait_all_safe(bench.signal(signal.SIGKILL), "killed")
    bench.process.wait(LIMIT_S)
    # Held, not left to the hardware, until the next daemon claims them, again at safe.
    with pytest.raises(BusHeld, match="'device-agent'"):
        claim(VALVE)
    bench.start()
    assert bench.lines_safe()
    guarded = {entry["device"] for entry in bench.ask("journal") if entry["who"] == "guard"}
    assert guarded == set(AWAY)
    bench.drive()
    bench.wait_all_safe(bench.signal(signal.SIGKILL), "killed again")


def test_a_stopped_daemon(rig, tmp_path):
    bench = Bench(rig, tmp_path, timeout_s=5.0)
    try:
        bench.start()
        guard = bench.guard()
        bench.drive()
        bench.wait_all_safe(bench.signal(signal.SIGSTOP), "stopped, guard_timeout_s = 5")
        bench.signal(signal.SIGCONT)
        until(lambda: bench.ask("status")["guard"]["takeovers"], "the takeover")
        until(bench._online, "daemon at work", START_LIMIT_S)
        bench.signal(signal.SIGTERM)
        assert bench.process.wait(LIMIT_S) == 0
    finally:
        bench.end()
    until(lambda: not os.path.exists(f"/proc/{guard}"), "the guard's end")


def test_a_chip_that_is_pulled_out_comes_back_under_its_name(bench):
    node = bench.rig.gpio.dev
    processes = (bench.process.pid, bench.guard())
    assert [lines_held(pid) for pid in processes] == [4, 2]  # the daemon has a second of each for a new guard
    bench.rig.gpio.unplug()
    until(
        lambda: not any(lines_held(pid, "/dev/gpiochip") for pid in processes),
        "end of every line and of the chip",
    )
    bench.rig.gpio.plug()
    until(lambda: os.path.exists(node), "the chip's return under its name")
    until(bench._online, "daemon with its lines", START_LIMIT_S)
    bench.drive()
    bench.wait_all_safe(bench.signal(signal.SIGKILL), "killed after a replug")


@pytest.fixture
def writes() -> Iterator[Callable[[], list[tuple[float, int]]]]:
    """The kernel's record of what is written to lines: CLOCK_MONOTONIC, and the level."""
    if not (TRACING / "events").exists():
        subprocess.run(["mount", "-t", "tracefs", "none", str(TRACING)], check=False, capture_output=True)
    if not (TRACING / "events/gpio/gpio_value").exists():
        pytest.skip("this kernel does not trace GPIO lines")
    (TRACING / "trace_clock").write_text("mono")
    (TRACING / "events/gpio/gpio_value/enable").write_text("1")

    def read() -> list[tuple[float, int]]:
        text = (TRACING / "trace").read_text()
        return [
            (float(t), int(level)) for t, level in re.findall(r"([0-9.]+): gpio_value: \d+ set (\d)", text)
        ]

    yield read
    (TRACING / "events/gpio/gpio_value/enable").write_text("0")
    (TRACING / "trace").write_text("")


@pytest.mark.parametrize("backend", ["gpiod", "gpiozero"])
def test_the_stops_contact_while_the_daemon_hangs(rig, tmp_path, writes, backend):
    if backend == "gpiozero":
        pytest.importorskip("lgpio")
    bench = Bench(rig, tmp_path, stop=True)
    bench.config.write_text(bench.config.read_text().replace(LABEL, f'{LABEL}"\nbackend = "{backend}'))
    try:
        bench.start()
        status = bench.ask("status")["guard"]
        assert status["stop_input"], bench.log_path.read_text()
        for burners in (0, 2):
            burning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(burners)]
            took_ms = []
            for _ in range(ROUNDS):
                until(
                    lambda: bench.ask("set", device="valve", values={"on": True})["state"] == "done",
                    "the valve on",
                )
                until(lambda: rig.gpio.get(VALVE) == 0, "the valve on")
                bench.signal(signal.SIGSTOP)
                contact_s = time.monotonic()
                rig.gpio.set(BUTTON, 0)
                safe_s = until(
                    lambda contact_s=contact_s: [t for t, level in writes() if level and t > contact_s],
                    "safe",
                )[0]
                took_ms.append((safe_s - contact_s) * 1000)
                assert rig.gpio.get(VALVE) == 1
                rig.gpio.set(BUTTON, 1)
                bench.signal(signal.SIGCONT)
                until(lambda: bench.ask("status")["emergency_stop"]["latched"], "the latch", START_LIMIT_S)
                until(lambda: bench.ask("release") is not None, "its release")
            for process in burning:
                process.kill()
                process.wait()
            shown = ", ".join(f"{ms:.1f}" for ms in sorted(took_ms))
            print(f"{backend}, {burners} burners, lacking {status['slow'] or 'nothing'}: {shown} ms")
    finally:
        guard = bench.guard()
        bench.end()
    os.kill(guard, signal.SIGTERM)
    until(lambda: not os.path.exists(f"/proc/{guard}"), "the guard's end")


def test_daemon_and_guard_die_together(rig, tmp_path):
    """The next guard opens chips and the port, and claims the lines, before there is a daemon."""
    path = tmp_path / "service.sock"

    def service() -> "subprocess.Popen[bytes]":
        path.unlink(missing_ok=True)
        words = [sys.executable, "-I", "-m", "device_agent.guard", "--socket", str(path)]
        started = subprocess.Popen(words)
        until(path.exists, "the guard's socket")
        return started

    guard = service()
    bench = Bench(rig, tmp_path)
    try:
        bench.start("sh", "-c", f'export DEVICE_AGENT_GUARD={path}; exec "$0" "$@"')
        bench.drive()
        guard.kill()
        bench.signal(signal.SIGKILL)
        bench.process.wait(LIMIT_S)
        guard.wait(LIMIT_S)
        began_s = time.monotonic()
        guard = service()
        bench.wait_all_safe(began_s, "both killed, and the guard started again")
    finally:
        bench.end()
        guard.terminate()
        guard.wait(LIMIT_S)


def test_out_of_memory(rig, tmp_path):
    """The kernel kills the daemon; the guard, a service beside it, does the rest."""
    if not (CGROUP / "cgroup.controllers").exists():
        subprocess.run(["mount", "-t", "cgroup2", "none", str(CGROUP)], check=False, capture_output=True)
    group = CGROUP / "device-agent-test"
    try:
        (CGROUP / "cgroup.subtree_control").write_text("+memory")
        group.mkdir(exist_ok=True)
        assert (group / "memory.max").exists()
    except (OSError, AssertionError):
        pytest.skip("no control group with a memory limit can be made here")
    path = tmp_path / "service.sock"
    service = subprocess.Popen([sys.executable, "-I", "-m", "device_agent.guard", "--socket", str(path)])
    bench = Bench(rig, tmp_path)
    try:
        until(path.exists, "the guard's socket")
        enter = f'echo $$ > {group}/cgroup.procs; export DEVICE_AGENT_GUARD={path}; exec "$0" "$@"'
        bench.start("sh", "-c", enter)
        bench.drive()
        used = int((group / "memory.current").read_text())
        began_s = time.monotonic()
        (group / "memory.max").write_text(str(used // 4))
        bench.wait_all_safe(began_s, "out of memory")
        assert bench.process.wait(LIMIT_S) == -signal.SIGKILL
    finally:
        bench.end()
        service.terminate()
        service.wait(LIMIT_S)
        until(lambda: not (group / "cgroup.procs").read_text(), "the group's end")
        group.rmdir()
