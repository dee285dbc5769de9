"""A world for a journey: network stand-in, simulated board, the daemon as a process, official callers."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from device_agent.cli import main
from device_agent.operate.control_socket import ask
from device_agent.testing.network import NetworkThread

# How much longer than usual everything may take on this machine: 4 on a Pi Zero, 12 where it is emulated.
SLOWNESS = float(os.environ.get("DEVICE_AGENT_SLOWNESS", "1"))
LIMIT_S = 20.0 * SLOWNESS
AGENT = "greenhouse_7"

CONFIG = """
[agent]
name = "greenhouse_7"
display_name = "Greenhouse 7"
description = "Climate and watering of greenhouse 7."
organization = "Example Farm"
tags = ["greenhouse"]
concurrency = {concurrency}

[network]
cdm_url = "{cdm_url}"
pubnub_origin = "{origin}"
pubnub_tls = false
publish_rate_hz = {rate_hz}

[state]
directory = "{folder}/state"

[safety]
lease_idle_s = 5
# A busy test machine must not look like a daemon that hangs.
guard_timeout_s = 10

[buses.i2c1]
kind = "i2c"
device = "/dev/i2c-1"
timeout_s = 0.5
[buses.pins]
kind = "gpio"
chip = "pinctrl-bcm2835"
timeout_s = 0.5
[buses.meter]
kind = "serial"
port = "/dev/ttyUSB0"
[buses.terminal]
kind = "serial"
port = "/dev/ttyUSB1"

[devices.climate]
driver = "bme280"
bus = "i2c1"
address = 0x76
every_s = 0.2
[devices.door]
driver = "gpio-input"
bus = "pins"
line = 17
debounce_s = 0.02
[devices.valve]
driver = "gpio-output"
bus = "pins"
line = 27
active_low = true
safe = false
max_on_s = 600
[devices.scale]
driver = "serial-lines"
bus = "meter"
format = "regex"
pattern = '^W +(?P<weight>-?[0-9.]+)'
command = "SP {{setpoint}}\\n"
[devices.scale.points]
weight = {{ unit = "g" }}
setpoint = {{ unit = "g", write = true, minimum = 0, maximum = 500, safe = 0 }}
[devices.console]
driver = "serial-bytes"
bus = "terminal"

[streams.telemetry]
direction = "outbound"
affinity = "shared"
devices = ["climate", "door", "scale"]
[streams.control]
direction = "bidirectional"
devices = ["valve", "door", "scale", "climate"]
link_loss_grace_s = 1.5
[streams.orders]
direction = "inbound"
devices = ["valve"]
[streams.console]
direction = "bidirectional"
format = "bytes"
devices = ["console"]

[access]
drive = ["user:user_alice", "user:user_bob"]
"""


def until(condition: Callable[[], Any], what: str, limit_s: float = LIMIT_S) -> Any:
    """Wait for a condition; its value."""
    deadline = time.monotonic() + limit_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {limit_s:g} s: {what}")
        threading.Event().wait(0.02)


class Daemon:
    """`device-agent run` as a process; `words` are on its command line, `python` is how it is begun."""

    def __init__(
        self,
        folder: Path,
        config: Path,
        environment: Mapping[str, str],
        words: Sequence[str] = ("--simulate",),
        python: Sequence[str] = ("-m", "device_agent"),
    ) -> None:
        self.log_path = folder / f"daemon-{time.monotonic_ns()}.log"
        self._socket = folder / "state" / "run" / "control.sock"
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *python, "run", *words, "--log", "json", "--config", config],
                env={**os.environ, **environment},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    def events(self) -> list[dict[str, Any]]:
        lines = self.log_path.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def logged(self, event: str) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(
                f"the daemon ended with {self.process.returncode}:\n{self.log_path.read_text()}"
            )
        return any(entry["event"] == event for entry in self.events())

    def wait_logged(self, event: str, limit_s: float = LIMIT_S) -> None:
        until(lambda: self.logged(event), f"{event} in the log", limit_s)

    def ask(self, op: str, **members: Any) -> Any:
        answer = ask(self._socket, {"op": op, **members}, LIMIT_S)
        return answer["result"] if answer["ok"] else answer

    def device(self, name: str) -> dict[str, Any]:
        return next(entry for entry in self.ask("status")["devices"] if entry["device"] == name)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(LIMIT_S)

    def end(self) -> None:
        """In order where it can: the guard of one that was killed goes on holding its lines."""
        try:
            self.stop()
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(LIMIT_S)


class BoardProcess:
    """`device-agent board run` and its other commands."""

    def __init__(self, folder: Path, config: Path) -> None:
        self.socket = folder / "board.sock"
        self.record_path = folder / "record.jsonl"
        words = ["run", "--socket", str(self.socket), "--record", str(self.record_path)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "device_agent", "--config", str(config), "board", *words],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline()

    def do(self, *words: str) -> str:
        """A `board` command, in this process: it only speaks to the socket."""
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = main(["board", *words, "--socket", str(self.socket)])
        assert code == 0, said.getvalue()
        return said.getvalue()

    def record(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.record_path.read_text().splitlines()]

    def levels(self, line: int) -> list[int]:
        return [entry["level"] for entry in self.record() if entry.get("line") == line]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(LIMIT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()


class Listening:
    """An opened stream of the official SDK, read in a thread."""

    def __init__(self, reference: Any) -> None:
        self.stream = reference.open()
        self.format = reference.descriptor.format
        self.events: list[Any] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        items = self.stream.bytes() if self.format == "bytes" else self.stream.events()
        for item in items:
            self.events.append(item)

    def of(self, kind: str, **members: Any) -> list[dict[str, Any]]:
        return [
            event
            for event in list(self.events)
            if event["kind"] == kind and all(event.get(name) == value for name, value in members.items())
        ]

    def wait(self, kind: str, limit_s: float = LIMIT_S, **members: Any) -> dict[str, Any]:
        """The first event of this kind with these members."""
        found = until(lambda: self.of(kind, **members), f"{kind} {members} in {self.events[-5:]}", limit_s)
        return found[0]  # type: ignore[no-any-return]

    def command(self, **members: Any) -> dict[str, Any]:
        """Send a command and wait for its ack."""
        self.stream.write(members)
        return self.wait("ack", id=members["id"])


class World:
    """Everything, ended in order."""

    def __init__(
        self,
        folder: Path,
        net: NetworkThread,
        *,
        config: str = CONFIG,
        link: str = "main",
        simulated: bool = True,
        **options: Any,
    ) -> None:
        """`config` is a template of these options; `link` is the port of the network that the daemon uses."""
        self.folder = folder
        self.net = net
        self.config = folder / "agent.toml"
        at = net.net.links[link].addresses
        values = {"concurrency": 8, "rate_hz": 0, **options}
        text = config.format(cdm_url=at["cdm_url"], origin=at["pubnub_origin"], folder=folder, **values)
        self.config.write_text(text + values.get("more", ""))
        self.board = BoardProcess(folder, self.config) if simulated else None
        self.daemons: list[Daemon] = []

    def start(self, *, joined: bool = True) -> Daemon:
        environment, words = {"BLOCKS_API_KEY": "bk_device"}, []
        if self.board is not None:
            environment["DEVICE_AGENT_BOARD"] = str(self.board.socket)
            words.append("--simulate")
        daemon = Daemon(self.folder, self.config, environment, words)
        self.daemons.append(daemon)
        if joined:
            daemon.wait_logged("joined")
            until(
                lambda: all(d["state"] == "online" for d in daemon.ask("status")["devices"]), "devices online"
            )
        return daemon

    @property
    def daemon(self) -> Daemon:
        return self.daemons[-1]

    def close(self) -> None:
        for daemon in self.daemons:
            if daemon.process.poll() is None:
                daemon.end()
        if self.board is not None:
            self.board.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def pipe(client: Any, request: Mapping[str, Any] | None = None, duration: int = 5) -> Any:
    """Open a pipe session; the official caller's session object."""
    parts = []
    if request is not None:
        parts = [{"partId": "request", "contentType": "application/json", "text": json.dumps(request)}]
    return client.send_message(agent_name=AGENT, request_parts=parts, task_kind="pipe", duration=duration)


def stream(session: Any, name: str) -> Listening:
    return Listening(session.wait_for_stream(name, timeout=LIMIT_S))


def question(client: Any, body: Any) -> Any:
    """A request task; the caller's session after its terminal."""
    text = body if isinstance(body, str) else json.dumps(body)
    part = {"partId": "request", "contentType": "application/json", "text": text}
    session = client.send_message(agent_name=AGENT, request_parts=[part])
    session.terminal = session.wait_for_terminal(LIMIT_S)
    return session


def result(session: Any) -> Any:
    """The `result` artifact of a request task."""
    return json.loads(session.download_artifact(session.list_artifacts()[0]).data)


def send(world: World, message: Any) -> None:
    """A raw control message, targeted at this very instance."""
    instance = world.daemon.ask("status")["instance"]
    world.net.call(lambda: world.net.net.send_control(AGENT, message, {"instance": instance}))


def start_of(world: World, session: Any) -> dict[str, Any]:
    """The StartTask of a session's task as the control channel carried it."""
    net = world.net.net
    return dict(world.net.call(net.backend.start_message, net.task(session.task_id)))
