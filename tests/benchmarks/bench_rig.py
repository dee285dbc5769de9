"""The rig of the benchmarks: stand-in, simulated board, the rivals as processes, an official caller.

Each rival sits behind a link of its own, which can be slow or dead alone; callers come by the link `main`.
"""

import compileall
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tty
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from device_agent.testing.board.link import SocketLink  # noqa: E402
from device_agent.testing.network import NetworkProcess  # noqa: E402
from device_agent.testing.network.sdk import sdk_environment  # noqa: E402
from support.processes import BoardProcess, Daemon  # noqa: E402
from support.tls_backend import add_authority, certificate  # noqa: E402
from support.tls_tunnel import TlsTunnel  # noqa: E402
from support.waiting import LIMIT_S, until  # noqa: E402

# As the service's unit has it.
SERVICE_ENVIRONMENT = {"MALLOC_ARENA_MAX": "1", "PYTHONNODEBUGRANGES": "1"}
STREAM, CONTROL = "readings", "control"
SESSIONS_MAX = 160
# On a machine that does ten other things.
START_LIMIT_S = 120.0
MEMORY = Path("/dev/shm")
OURS, OFFICIAL, BARE = "device-agent", "official", "bare loop"

AGENT_TOML = """
[agent]
name = "{agent}"
display_name = "Benchmark"
description = "Measured."
organization = "Tests"
tags = ["benchmark"]
concurrency = {sessions}
[network]
cdm_url = "{cdm_url}"
api_base_url = "{api_base_url}"
pubnub_origin = "{pubnub_origin}"
pubnub_tls = {tls}
publish_rate_hz = {rate_hz}
[state]
directory = "{folder}/state"
"""

LINES_TOML = """
[buses.meter]
kind = "serial"
port = "{meter}"
baud = 115200
[devices.meter]
driver = "serial-lines"
bus = "meter"
format = "csv"
columns = ["n", "flow"]
[devices.meter.points]
n = {{ type = "integer" }}
flow = {{ unit = "L/min" }}
[streams.readings]
direction = "outbound"
devices = ["meter"]
"""

# The lines of the simulated board that each rival owns: an input and an output.
PINS = {OURS: 17, OFFICIAL: 18, BARE: 5}
LAMPS = {OURS: 27, OFFICIAL: 22, BARE: 6}

EDGES_TOML = """
[buses.pins]
kind = "gpio"
chip = "pinctrl-bcm2835"
[devices.door]
driver = "gpio-input"
bus = "pins"
line = 17
[devices.lamp]
driver = "gpio-output"
bus = "pins"
line = 27
safe = false
[streams.readings]
direction = "outbound"
devices = ["door"]
[streams.control]
direction = "bidirectional"
devices = ["lamp"]
[access]
drive = "anyone"
"""


class SerialSource:
    """The far end of a serial port that both rivals can open: a pseudo-terminal."""

    def __init__(self) -> None:
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.port = os.ttyname(self._slave)
        self.sent: list[int] = []
        self.overrun = 0

    def send(self, numbers: Iterable[int]) -> bool:
        """Lines with these numbers; False when the port's buffer is full, as a wire has no patience."""
        wanted = list(numbers)
        data = b"".join(b"%d,%.3f\n" % (n, 10 + n % 700 / 100) for n in wanted)
        try:
            done = os.write(self._master, data)
        except BlockingIOError:
            done = 0
        while 0 < done < len(data):
            try:
                done += os.write(self._master, data[done:])
            except BlockingIOError:
                time.sleep(0.001)  # a line that has begun goes out whole
        if not done:
            self.overrun += len(wanted)
            return False
        self.sent += wanted
        return True

    @property
    def master(self) -> int:
        """The far end's descriptor, which does not block."""
        return self._master

    def close(self) -> None:
        os.close(self._master)
        os.close(self._slave)


def moved_s(board: BoardProcess, since: int, line: int) -> float:
    """When a line changed first after that place in the board's record, which is written a little later."""

    def moves() -> list[dict[str, Any]]:
        return [entry for entry in board.record()[since:] if entry.get("line") == line]

    return float(until(moves, "the change of the line")[0]["t"])


class Receiver:
    """An official caller's open stream, read in a thread: each event with the instant of its arrival."""

    def __init__(self, session: Any, on_event: Callable[[dict[str, Any], float], None]) -> None:
        self.session = session
        self._stream = session.wait_for_stream(STREAM, timeout=LIMIT_S).open()
        self._on_event = on_event
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for event in self._stream.events():
            self._on_event(event, time.monotonic())

    def close(self) -> None:
        self.session.cancel()
        self.session.wait_for_terminal(LIMIT_S)


class Numbers:
    """Readings with a number as a caller got them: (number, late), and when."""

    def __init__(self) -> None:
        self.received: list[tuple[int, bool]] = []
        self.at_s: list[float] = []
        self.first: dict[str, Any] | None = None

    def __call__(self, event: dict[str, Any], at_s: float) -> None:
        if event.get("kind") == "reading":
            self.first = self.first or event
            self.received.append((event["values"].get("n", -1), event.get("late", False)))
            self.at_s.append(at_s)


class Rival:
    """A provider runtime at work as a process, with a serial port of its own."""

    name = ""
    process: subprocess.Popen[bytes]
    started_s = 0.0

    def __init__(self, rig: "Rig", agent: str) -> None:
        self.agent = agent
        self.source = rig.source()
        self.link = agent
        self.addresses: Mapping[str, Any] = rig.open_link(self.link)

    @property
    def pid(self) -> int:
        return self.process.pid

    def request(self, op: str, **options: Any) -> dict[str, Any]:
        """The input part `request` of a pipe task that does this work."""
        raise NotImplementedError

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(LIMIT_S)


class Ours(Rival):
    """The daemon, on a simulated board or on the serial port; `rate_hz` 12 is its default, 0 no pacing."""

    name = OURS

    def __init__(
        self,
        rig: "Rig",
        config: str,
        *,
        agent: str,
        simulated: bool = False,
        rate_hz: float = 12,
        tls: bool = False,
    ) -> None:
        super().__init__(rig, agent)
        if tls:
            self.addresses = rig.behind_tls(self.addresses)
        self.folder = rig.folder / agent
        self.folder.mkdir()
        # As systemd does it: the runtime directory is in memory, the state is on the disk.
        in_memory = rig.memory / agent
        in_memory.mkdir(mode=0o700)
        (self.folder / "state").mkdir(mode=0o700)
        (self.folder / "state" / "run").symlink_to(in_memory)
        self.config = self.folder / "agent.toml"
        text = (AGENT_TOML + config).format(
            agent=agent,
            sessions=SESSIONS_MAX,
            folder=self.folder,
            meter=self.source.port,
            rate_hz=rate_hz,
            tls=str(tls).lower(),
            **self.addresses,
        )
        self.config.write_text(text)
        self.board = BoardProcess(self.folder, self.config) if simulated else None
        self.start()

    def start(self) -> None:
        """Start the process, again if need be, without waiting for it."""
        environment, words = {"BLOCKS_API_KEY": "bk_device", **SERVICE_ENVIRONMENT}, []
        environment["STATE_DIRECTORY"] = str(self.folder / "state")
        if self.board is not None:
            environment["DEVICE_AGENT_BOARD"] = str(self.board.socket)
            words.append("--simulate")
        self.started_s = time.monotonic()
        self.daemon = Daemon(self.folder, self.config, environment, words)
        self.process = self.daemon.process

    def ready(self) -> None:
        self.daemon.wait_logged("joined")
        until(self._online, "devices online")

    def _online(self) -> bool:
        # The scale is online once it has said something.
        return all(
            device["state"] == "online" or device["detail"] == "has said nothing yet"
            for device in self.daemon.ask("status")["devices"]
        )

    def request(self, op: str, **options: Any) -> dict[str, Any]:
        return {"streams": [STREAM]}

    def pin(self, line: int) -> Callable[[bool], None]:
        """What sets a line of the board; it is low to begin with."""
        assert self.board is not None
        link = SocketLink(self.board.socket, "stimulus")
        link.call("pin", "pins", line, False)
        return lambda level: link.call("pin", "pins", line, level)

    def stop(self) -> None:
        super().stop()
        if self.board is not None:
            self.board.stop()


class Official(Rival):
    """The official provider runtime with the handler of `bench_provider`."""

    name = OFFICIAL

    def __init__(self, rig: "Rig", *, agent: str) -> None:
        super().__init__(rig, agent)
        self.folder = rig.folder / agent
        self.folder.mkdir()
        rig.net.call("register", agent=agent, card=card(agent))
        (self.folder / "agent-card.json").write_text(json.dumps(card(agent)))
        shutil.copy(HERE / "bench_provider.py", self.folder / "handler.py")
        self._environment = {
            **os.environ,
            **sdk_environment(self.addresses["cdm_url"], self.addresses["pubnub_origin"], "bk_device"),
            "AGENT_SHUTDOWN_GRACE_SEC": "0",
        }
        self.start()

    def start(self) -> None:
        self.started_s = time.monotonic()
        with (self.folder / "log.txt").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "scripts.run_agent"],
                cwd=self.folder,
                env=self._environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    def request(self, op: str, **options: Any) -> dict[str, Any]:
        return {"op": op, "port": self.source.port, **options}


class BareLoop(Rival):
    """The program of `bench_bare`, on streams that the official runtime opens for it: a process a session."""

    name = BARE

    def __init__(self, rig: "Rig", official: Official) -> None:
        self.agent, self._official = official.agent, official
        self.source = rig.source()

    @property
    def pid(self) -> int:
        """Of the session that is open."""
        children = Path(f"/proc/{self._official.pid}/task")
        (pid,) = {one for task in children.iterdir() for one in (task / "children").read_text().split()}
        return int(pid)

    def request(self, op: str, **options: Any) -> dict[str, Any]:
        program = str(HERE / "bench_bare.py")
        return {"op": "bare", "what": op, "program": program, "port": self.source.port, **options}


def card(agent: str) -> dict[str, Any]:
    """An agent card for `bench_provider`."""
    return {
        "identity": {
            "agentName": agent,
            "displayName": agent,
            "description": "Measured.",
            "version": "1.0.0",
            "provider": {"organization": "Tests"},
        },
        "capabilities": {"taskKinds": ["pipe"]},
        "tags": [{"id": "test", "name": "Test"}],
        "runtime": {"handler": "handler.py", "concurrency": SESSIONS_MAX, "expectedInstances": 1},
        "io": {
            "inputs": [
                {"id": "request", "contentType": "application/json", "description": "what", "required": False}
            ],
            "outputs": [],
        },
        "streams": {
            STREAM: {"direction": "outbound", "format": "events", "schema": {}},
            CONTROL: {
                "direction": "bidirectional",
                "format": "events",
                "outboundSchema": {},
                "inboundSchema": {},
            },
        },
    }


class Rig:
    """Everything, ended in order: `with Rig() as rig:`."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.net = NetworkProcess("--auto-register")
        self._links: list[str] = []

    def __enter__(self) -> Self:
        # Ended by a signal, it still ends what it has started.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        # As an installed package is: otherwise each start would compile ours, and not the rival's.
        for package in ("device_agent", "drivers"):
            compileall.compile_dir(HERE.parents[1] / package, quiet=1)
        self.folder = self._directory(None)
        self.memory = self._directory(MEMORY if MEMORY.is_dir() else None)
        self._stack.enter_context(self.net)
        # The official caller misses what comes before it has subscribed; that race is not measured here.
        self.net.call("set", dispatch_when_watched_s=5.0)
        os.environ.update(sdk_environment(self.net.cdm_url, self.net.pubnub_origin, "bk_alice"))
        from blocks_network import TaskClient

        self.client = TaskClient.create(billing_mode="free", api_key="bk_alice")
        self._stack.callback(self.client.destroy)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _directory(self, where: Path | None) -> Path:
        return Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=where)))

    def source(self) -> SerialSource:
        source = SerialSource()
        self._stack.callback(source.close)
        return source

    def ours(self, config: str, *, agent: str = "ours", devices: bool = True, **options: Any) -> Ours:
        """The daemon, joined; with `devices`, all of them online too. Options as of `Ours`."""
        rival = Ours(self, config, agent=agent, **options)
        self._stack.callback(rival.stop)
        self.joined(rival)
        if devices:
            rival.ready()
        return rival

    def official(self, *, agent: str = "official") -> Official:
        """The official runtime, joined."""
        rival = Official(self, agent=agent)
        self._stack.callback(rival.stop)
        self.joined(rival)
        return rival

    def joined(self, rival: Rival) -> None:
        """Wait until an instance of this agent is present."""

        def is_there() -> bool:
            try:
                self.net.call("wait_joined", agent=rival.agent)
            except ValueError:
                return False
            return True

        until(is_there, f"{rival.agent} joins", START_LIMIT_S)

    def open_link(self, name: str) -> Mapping[str, Any]:
        """Another way into the network; its addresses."""
        self._links.append(name)
        return dict(self.net.call("open_link", name=name))

    def behind_tls(self, addresses: Mapping[str, Any]) -> Mapping[str, Any]:
        """The same by TLS, by an authority that processes started from here on know, beside the system's."""
        folder, now = self.folder / "authorities", datetime.now(UTC)
        context = certificate(self.folder, now - timedelta(days=1), now + timedelta(days=1))
        shutil.copytree("/etc/ssl/certs", folder)
        add_authority(self.folder / "ca.pem", folder)
        os.environ.pop("SSL_CERT_FILE", None)
        os.environ["SSL_CERT_DIR"] = str(folder)
        tunnel = self._stack.enter_context(TlsTunnel(context, int(addresses["port"])))
        base = f"https://localhost:{tunnel.port}"
        return {
            **addresses,
            "cdm_url": f"{base}/config.json",
            "api_base_url": base,
            "pubnub_origin": f"localhost:{tunnel.port}",
        }

    def rtt(self, edge_ms: float, main_ms: float = 0.0) -> None:
        """Round trips of the rivals' links and of the callers'."""
        for name in self._links:
            self.net.call("set_rtt", rtt_ms=edge_ms, link=name)
        self.net.call("set_rtt", rtt_ms=main_ms, link="main")

    def open(
        self, rival: Rival, request: Mapping[str, Any], on_event: Callable[[dict[str, Any], float], None]
    ) -> Receiver:
        """A pipe session of an official caller, with its stream open."""
        part = {"partId": "request", "contentType": "application/json", "text": json.dumps(request)}
        session = self.client.send_message(
            agent_name=rival.agent, request_parts=[part], task_kind="pipe", duration=30
        )
        return Receiver(session, on_event)
