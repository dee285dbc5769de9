"""The daemon and the simulated board, each as a process."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from device_agent.cli import main
from device_agent.operate.control_socket import ask
from support.waiting import LIMIT_S, until


def json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects in a file that another process appends to; a last line still being written is left out."""
    whole, _, _ = path.read_text().rpartition("\n")
    return [json.loads(line) for line in whole.split("\n") if line.startswith("{")]


def high_water_kb(pid: int) -> int:
    """The most memory that a process had resident so far."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


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
        return json_lines(self.log_path)

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
        return json_lines(self.record_path)

    def levels(self, line: int) -> list[int]:
        return [entry["level"] for entry in self.record() if entry.get("line") == line]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(LIMIT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
