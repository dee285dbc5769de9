"""A daemon with an actuator on every kind of bus, a simulated board, and what the board saw."""

import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import msgpack
import pytest

from device_agent.testing.board.link import SocketLink
from device_agent.testing.board.server import STIMULUS
from support.processes import BoardProcess, Daemon
from support.waiting import LIMIT_S, until

# Nobody answers at that network: the agent samples and obeys its owner all the same.
CONFIG = """
[agent]
name = "guarded"
display_name = "Guarded"
description = "Actuators on every bus."
organization = "Tests"
tags = ["test"]
[network]
cdm_url = "http://127.0.0.1:9"
[state]
directory = "{folder}/state"
[safety]
guard_timeout_s = {timeout_s}
stop_device = "button"
lease_idle_s = 60
[buses.pins]
kind = "gpio"
chip = "pinctrl-bcm2835"
timeout_s = 0.5
[buses.i2c1]
kind = "i2c"
device = "/dev/i2c-1"
timeout_s = 0.5
[buses.meter]
kind = "serial"
port = "/dev/ttyUSB0"
timeout_s = 0.5
[buses.broker]
kind = "mqtt"
host = "localhost"
timeout_s = 0.5
[devices.button]
driver = "gpio-input"
bus = "pins"
line = 4
bias = "pull-up"
active_low = true
[devices.valve]
driver = "gpio-output"
bus = "pins"
line = 27
active_low = true
safe = false
every_s = 1
[devices.lamp]
driver = "gpio-output"
bus = "pins"
line = 22
safe = true
every_s = 1
[devices.relays]
driver = "mcp23017"
bus = "i2c1"
address = 0x20
outputs = ["a0", "b7"]
safe = false
every_s = 1
[devices.scale]
driver = "serial-lines"
bus = "meter"
format = "regex"
pattern = '^W +(?P<weight>-?[0-9.]+)'
command = "SP {{setpoint}}\\n"
[devices.scale.points]
weight = {{ unit = "g" }}
setpoint = {{ unit = "g", write = true, minimum = 0, maximum = 500, safe = 0 }}
[devices.plug]
driver = "mqtt-topic"
bus = "broker"
[devices.plug.points]
on = {{ type = "boolean", topic = "plug/on", write = true, write_topic = "plug/set", safe = false }}
"""

ACTUATORS = ("valve", "lamp", "relays", "scale", "plug")
AWAY: dict[str, dict[str, Any]] = {
    "valve": {"on": True},
    "lamp": {"on": False},
    "relays": {"a0": True, "b7": True},
    "scale": {"setpoint": 250},
    "plug": {"on": True},
}
VALVE, LAMP, BUTTON = 27, 22, 4
VALVE_SAFE, LAMP_SAFE = 1, 1  # the valve is active low


class Scene:
    """The daemon's process is replaced by `start`; the board stays."""

    def __init__(self, folder: Path, timeout_s: float = 1.0) -> None:
        self.folder = folder
        self.config = folder / "agent.toml"
        self.config.write_text(CONFIG.format(folder=folder, timeout_s=timeout_s))
        self.board = BoardProcess(folder, self.config)
        self.environment = {"BLOCKS_API_KEY": "bk_device", "DEVICE_AGENT_BOARD": str(self.board.socket)}
        self.daemons: list[Daemon] = []
        self._board = SocketLink(self.board.socket, STIMULUS)

    @property
    def daemon(self) -> Daemon:
        return self.daemons[-1]

    def start(self, *, online: bool = True, **environment: str) -> Daemon:
        self.daemons.append(Daemon(self.folder, self.config, {**self.environment, **environment}))
        self.daemon.wait_logged("ready")
        if online:
            until(self.online, "every device online")
        return self.daemon

    def online(self) -> bool:
        return all(device["state"] == "online" for device in self.daemon.ask("status")["devices"])

    def drive(self, names: tuple[str, ...] = ACTUATORS) -> None:
        """Everything away from safe."""
        for name in names:
            # A busy machine may take longer than a bus allows.
            until(
                lambda name=name: self.daemon.ask("set", device=name, values=AWAY[name])["state"] == "done",
                f"{name} away from safe",
            )

    def guard(self) -> int:
        """The process id of the guard at work."""
        started = [event for event in self.daemon.events() if event["event"] == "guard_started"]
        return int(started[-1]["pid"])

    def freeze(self) -> None:
        self.daemon.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.daemon.process.send_signal(signal.SIGCONT)

    # -- the record -----------------------------------------------------------------------------------------

    def entries(self, **members: Any) -> list[dict[str, Any]]:
        return [e for e in self.board.record() if all(e.get(k) == v for k, v in members.items())]

    def by_guard(self, **members: Any) -> list[dict[str, Any]]:
        return self.entries(by="guard", **members)

    def wait_guard(self, count: int = 1, **members: Any) -> dict[str, Any]:
        """The count-th thing the guard did there."""
        found = until(lambda: self.by_guard(**members)[count - 1 :], f"the guard at {members}")
        return dict(found[0])

    def wait_all_safe(self, count: int = 1) -> float:
        """Until the guard has made everything safe; when the last of it was, CLOCK_MONOTONIC."""
        entries = [
            self.wait_guard(count, bus="pins", line=VALVE, level=VALVE_SAFE),
            self.wait_guard(count, bus="pins", line=LAMP, level=LAMP_SAFE),
            self.wait_guard(count, bus="meter", bytes="SP 0\n"),
            self.wait_guard(count, bus="broker", topic="plug/set"),
        ]
        until(lambda: self.shown("relays") == {"a0": False, "b7": False}, "the expander at safe")
        relays = [e for e in self.by_guard(bus="i2c1", device="relays") if "point" in e]
        return float(max(entry["t"] for entry in entries + relays))

    def levels(self, line: int) -> list[tuple[int, str]]:
        return [(entry["level"], entry["by"]) for entry in self.entries(bus="pins", line=line)]

    def shown(self, device: str) -> dict[str, Any]:
        values = self._board.call("show")["devices"][device]["values"]
        return {name: value for name, value in values.items() if name in AWAY[device]}

    def holders(self, line: int) -> list[str]:
        lines = self._board.call("show")["buses"]["pins"]["lines"]
        return next(list(shown["holders"]) for shown in lines if shown["line"] == line)

    def press(self, *, pressed: bool = True) -> None:
        """The button of the emergency stop, to ground."""
        self._board.call("pin", "pins", BUTTON, not pressed)

    def fault(self, bus: str, kind: str, device: str | None = None) -> None:
        self._board.call("fault", bus, kind, None, device)

    def heal(self, bus: str) -> None:
        self._board.call("heal", bus)

    def journal(self, who: str = "guard") -> list[dict[str, Any]]:
        return [entry for entry in self.daemon.ask("journal") if entry["who"] == who]

    def close(self) -> None:
        for daemon in self.daemons:
            if daemon.process.poll() is None:
                daemon.kill()
        self._board.close()
        self.board.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Service:
    """The guard as the service manager runs it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "service.sock"
        self.log_path = folder / "guard.log"
        self.process = self._started()

    def _started(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-I", "-m", "device_agent.guard", "--socket", str(self.path)]
        with self.log_path.open("wb") as log:
            process = subprocess.Popen([*command, "--log", "json"], stderr=log, stdin=subprocess.DEVNULL)
        until(lambda: process.pid == listener_of(self.path), "the guard's socket")
        return process

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(LIMIT_S)

    def start_again(self) -> None:
        """As its service manager does when it was killed."""
        self.process = self._started()

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(LIMIT_S)


def listener_of(path: Path) -> int:
    """Which process listens at a socket; 0 if none does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return 0
        return int(struct.unpack("iII", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])


class Question:
    """A question that waits at the control socket until the daemon comes to it."""

    def __init__(self, folder: Path, **members: Any) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(LIMIT_S)
        self._socket.connect(str(folder / "state" / "run" / "control.sock"))
        body = msgpack.packb(members)
        self._socket.sendall(struct.pack(">I", len(body)) + body)

    def answer(self) -> Any:
        with self._socket as channel:
            data = b""
            while len(data) < 4 or len(data) < 4 + struct.unpack(">I", data[:4])[0]:
                part = channel.recv(65_536)
                assert part, "the daemon closed the connection"
                data += part
        return msgpack.unpackb(data[4:])["result"]


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def now_s() -> float:
    return time.monotonic()


def environment_of(service: Service) -> Mapping[str, str]:
    return {"DEVICE_AGENT_GUARD": str(service.path)}


@pytest.fixture
def new_scene(tmp_path: Path) -> Iterator[Callable[..., Scene]]:
    scenes: list[Scene] = []

    def make(timeout_s: float = 1.0) -> Scene:
        scenes.append(Scene(tmp_path, timeout_s))
        return scenes[-1]

    yield make
    for scene in scenes:
        scene.close()


@pytest.fixture
def scene(new_scene: Callable[..., Scene]) -> Scene:
    """A daemon at work with a patient guard, so that a busy machine does not look like a hang."""
    made = new_scene(10.0)
    made.start()
    return made
