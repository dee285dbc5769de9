"""The processes of the demo: network stand-in, simulated board, daemon, in a folder that goes with them."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from device_agent.cli import demo_scene as scene
from device_agent.errors import AgentError, BusError, BusGone
from device_agent.operate.control_socket import ask
from device_agent.testing.board.link import SocketLink
from device_agent.testing.board.server import STIMULUS
from device_agent.testing.network.hosting import NetworkProcess

# An interpreter on a Pi Zero with a cold card takes its time.
START_LIMIT_S = 60.0
STOP_LIMIT_S = 8.0
ANSWER_LIMIT_S = 2.0
DAEMON_LINK = "daemon"
SHORT_ENOUGH = 50


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
                # A daemon that can take its leave ends at once.
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
        """Where the caller's SDK may say what it likes."""
        return self._folder / "caller.log"

    def _configuration(self, *addresses: str) -> str:
        return scene.configuration(str(self._folder), *addresses) + self._more

    # -- processes ----------------------------------------

    def _start(self, stack: contextlib.ExitStack, name: str, *words: str) -> "subprocess.Popen[bytes]":
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("BLOCKS_")},
            "BLOCKS_API_KEY": scene.KEY,
            "DEVICE_AGENT_BOARD": str(self.socket),
        }
        with (self._folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", f"{__package__}.demo_child", str(os.getpid()), *words],
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

    # -- looking ----------------------------------------

    def status(self) -> Mapping[str, Any] | None:
        """The daemon's own account; None while it does not answer."""
        try:
            answer = ask(self._folder / "state" / "run" / "control.sock", {"op": "status"}, ANSWER_LIMIT_S)
        except OSError:
            return None
        result = answer.get("result")
        return result if isinstance(result, dict) else None

    def valve_open(self) -> bool | None:
        """What the pin itself says, whoever set it: the relay closes its contact at a low level."""
        shown = self.board("show")
        for line in shown["buses"]["pins"]["lines"]:
            if line["line"] == scene.VALVE_LINE and line["direction"] == "output":
                return not line["level"]
        return None

    def board(self, op: str, *words: Any) -> Any:
        """Change or look at the simulated board. Raises AgentError."""
        if self._board is None:
            self._board = SocketLink(self.socket, STIMULUS)
        try:
            return self._board.call(op, *words)
        except BusGone as error:
            raise AgentError(f"the simulated board has gone: {self._last_line('board')}") from error
        except (BusError, ValueError) as error:
            raise AgentError(str(error)) from error

    # -- what a person may break ----------------------------------------

    @property
    def cut(self) -> bool:
        return self._cut

    def cut_link(self) -> None:
        """From now on the daemon reaches nobody."""
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


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and a closed terminal end the demo as Ctrl-C does, so that its children end with it."""

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    assert threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
