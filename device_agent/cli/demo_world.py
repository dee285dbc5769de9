"""The demo's greenhouse: its configuration, and its processes in a folder that is removed with them."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from device_agent.errors import AgentError, BusError, BusGone
from device_agent.operate.control_socket import ask
from device_agent.testing.board.link import SocketLink
from device_agent.testing.board.server import STIMULUS
from device_agent.testing.network.hosting import NetworkProcess

AGENT = "demo_greenhouse"
KEY = "bk_demo"
VALVE, DOOR, CLIMATE, TANK = "valve", "door", "climate", "tank"
DOOR_LINE, VALVE_LINE = 17, 27
# After this long without link the daemon closes the valve on its own.
LINK_GRACE_S = 10


@dataclass(frozen=True, slots=True)
class TableRow:
    """A line of the caller's table."""

    device: str
    point: str
    label: str
    unit: str
    digits: int = 1


ROWS = (
    TableRow(CLIMATE, "temperature", "temperature", "°C", 2),
    TableRow(CLIMATE, "humidity", "humidity", "%", 1),
    TableRow(CLIMATE, "pressure", "pressure", "hPa", 1),
    TableRow(TANK, "weight", "water", "kg", 2),
    TableRow(DOOR, "active", "contact", ""),
    TableRow(VALVE, "on", "relay", ""),
)

DEVICES = f"""
[agent]
name = "{AGENT}"
display_name = "Demo greenhouse"
description = "A greenhouse that exists in this computer only."
organization = "Demo"
tags = ["demo"]

[buses.i2c1]
kind = "i2c"
device = "/dev/i2c-1"
[buses.pins]
kind = "gpio"
chip = "gpiochip0"
[buses.uart]
kind = "serial"
port = "/dev/ttyUSB0"

[devices.{CLIMATE}]
driver = "bme280"
bus = "i2c1"
address = 0x76
every_s = 0.5
[devices.{DOOR}]
driver = "gpio-input"
bus = "pins"
line = {DOOR_LINE}
debounce_s = 0.02
[devices.{TANK}]
driver = "serial-lines"
bus = "uart"
format = "regex"
pattern = '^W +(?P<weight>-?[0-9.]+) kg'
[devices.{TANK}.points]
weight = {{ unit = "kg", low = 0, high = 50 }}
[devices.{VALVE}]
driver = "gpio-output"
bus = "pins"
line = {VALVE_LINE}
every_s = 1
active_low = true
safe = false
max_on_s = 600

[streams.live]
direction = "bidirectional"
devices = ["{CLIMATE}", "{DOOR}", "{TANK}", "{VALVE}"]
link_loss_grace_s = {LINK_GRACE_S}

[access]
read = "anyone"
drive = ["user:user_demo"]
"""


def configuration(folder: str, cdm_url: str = "", origin: str = "") -> str:
    """The configuration file; without addresses it serves for `board run`."""
    network = f'cdm_url = "{cdm_url}"\npubnub_origin = "{origin}"\npubnub_tls = false\n' if cdm_url else ""
    return f'{DEVICES}\n[network]\n{network}\n[state]\ndirectory = "{folder}/state"\n'


# An interpreter on a Pi Zero with a cold card takes its time.
START_LIMIT_S = 60.0
STOP_LIMIT_S = 8.0
ANSWER_LIMIT_S = 2.0
DAEMON_LINK = "daemon"
SHORT_ENOUGH = 50
# Runs a command of this program that ends when the demo does, however the demo ends (prctl PR_SET_PDEATHSIG).
# The demo may have ended before the request for the signal was in force.
CHILD = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() == int(sys.argv[1]):
    from device_agent.cli import main
    sys.exit(main(sys.argv[2:]))
"""


class World:
    """`with World() as world:` starts everything and ends it in order, with nothing left behind."""

    def __init__(self, more: str = "") -> None:
        """`more` is added to the demo's configuration, for tests of other callers."""
        self._more = more
        self.network: NetworkProcess
        self._ends = contextlib.ExitStack()
        self._board: SocketLink | None = None
        self._cut = False

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            folder = Path(tempfile.mkdtemp(prefix="device-agent-demo-", dir=_room_for_sockets()))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            self._folder = folder
            self.socket = folder / "board.sock"
            (folder / "board.toml").write_text(self._configuration())
            # The board loads while the network does; the daemon needs the network's address first.
            board = self._start(
                stack, "board", "--config", "board.toml", "board", "run", "--socket", str(self.socket)
            )
            self.network = stack.enter_context(NetworkProcess("--auto-register"))
            # A link of its own, so that the daemon's can be cut while the caller's stays.
            link = self.network.call("open_link", name=DAEMON_LINK)
            (folder / "agent.toml").write_text(self._configuration(link["cdm_url"], link["pubnub_origin"]))
            self._daemon = self._start(
                stack, "daemon", "--config", "agent.toml", "run", "--simulate", "--log", "json"
            )
            self._wait(board, "board", self.socket.exists)
            self._ends = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with self._ends:
            if self._board is not None:
                self._board.close()
            if self._cut:
                # A daemon that can sign off ends at once.
                with contextlib.suppress(AgentError):
                    self.restore_link()

    @property
    def cdm_url(self) -> str:
        """The caller's way into the network."""
        return self.network.cdm_url

    @property
    def port(self) -> int:
        return self.network.port

    @property
    def log(self) -> Path:
        """The log of the caller's SDK."""
        return self._folder / "caller.log"

    def _configuration(self, *addresses: str) -> str:
        return configuration(str(self._folder), *addresses) + self._more

    # -- processes ----------------------------------------

    def _start(self, stack: contextlib.ExitStack, name: str, *words: str) -> "subprocess.Popen[bytes]":
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("BLOCKS_")},
            "BLOCKS_API_KEY": KEY,
            "DEVICE_AGENT_BOARD": str(self.socket),
        }
        with (self._folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", CHILD, str(os.getpid()), *words],
                cwd=self._folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the demo, which ends the others in order
            )
        stack.callback(_end, process)
        return process

    def _wait(self, process: "subprocess.Popen[bytes]", name: str, done: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + START_LIMIT_S
        while not done():
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise AgentError(f"the {name} did not start: {self._last_line(name)}")
            time.sleep(0.02)

    def _last_line(self, name: str) -> str:
        lines = (self._folder / f"{name}.log").read_text(errors="replace").splitlines()
        return lines[-1][:300].removeprefix("error: ") if lines else "it said nothing"

    def wait_joined(self) -> None:
        """Until the daemon is on the network. Raises AgentError."""
        self._wait(self._daemon, "daemon", lambda: bool((self.status() or {}).get("link", {}).get("joined")))

    # -- queries ----------------------------------------

    def status(self) -> Mapping[str, Any] | None:
        """The daemon's status; None while it does not answer."""
        try:
            answer = ask(self._folder / "state" / "run" / "control.sock", {"op": "status"}, ANSWER_LIMIT_S)
        except OSError:
            return None
        result = answer.get("result")
        return result if isinstance(result, dict) else None

    def valve_open(self) -> bool | None:
        """The level of the pin, whoever set it: the relay closes its contact at a low level."""
        shown = self.board("show")
        for line in shown["buses"]["pins"]["lines"]:
            if line["line"] == VALVE_LINE and line["direction"] == "output":
                return not line["level"]
        return None

    def board(self, op: str, *words: Any) -> Any:
        """Change or query the simulated board. Raises AgentError."""
        if self._board is None:
            self._board = SocketLink(self.socket, STIMULUS)
        try:
            return self._board.call(op, *words)
        except BusGone as error:
            raise AgentError(f"the simulated board has gone: {self._last_line('board')}") from error
        except (BusError, ValueError) as error:
            raise AgentError(str(error)) from error

    # -- faults ----------------------------------------

    @property
    def cut(self) -> bool:
        return self._cut

    def cut_link(self) -> None:
        """From now on the daemon does not reach the network."""
        self._call("refuse")
        self._cut = True

    def restore_link(self) -> None:
        self._call("accept")
        self._cut = False

    def _call(self, method: str) -> None:
        try:
            self.network.call(method, timeout_s=ANSWER_LIMIT_S, link=DAEMON_LINK)
        except (ValueError, OSError) as error:
            raise AgentError(f"the network stand-in does not answer ({error})") from error


def _room_for_sockets() -> str | None:
    """A folder for temporary files in which a socket's path stays below the kernel's 108 bytes."""
    return "/tmp" if len(tempfile.gettempdir()) > SHORT_ENOUGH and os.access("/tmp", os.W_OK) else None


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
