"""What the service manager hears from the real daemon: ready, alive while it works, stopping."""

import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from support.deployment import CONFIG
from support.processes import Daemon
from support.waiting import LIMIT_S, until

# Fed at a third of this: two words are missing before the service manager acts.
WATCHDOG_S = 1.5
# What MemoryDenyWriteExecute= and NoNewPrivileges= do, put on by the process itself; the numbers of prctl.
SANDBOXED = """
import ctypes, os, sys
NO_NEW_PRIVS, SET_MDWE = 38, 65
prctl = ctypes.CDLL(None).prctl
if prctl(NO_NEW_PRIVS, 1, 0, 0, 0) or prctl(SET_MDWE, 1, 0, 0, 0):
    sys.exit(69)
os.execv(sys.executable, [sys.executable, "-m", "device_agent", *sys.argv[1:]])
"""
NOT_HERE = 69


class Manager:
    """The service manager's end of the socket."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))
        self.heard: list[str] = []

    def hear(self, what: Callable[[str], bool], limit_s: float = LIMIT_S) -> str:
        """The next word that is meant; those before it are kept in `heard`."""
        deadline_s = time.monotonic() + limit_s
        while (left_s := deadline_s - time.monotonic()) > 0:
            if select.select([self._socket], [], [], left_s)[0]:
                self.heard.append(self._socket.recv(4096).decode())
                if what(self.heard[-1]):
                    return self.heard[-1]
        raise AssertionError(f"not heard within {limit_s:g} s; heard: {self.heard}")

    def forget(self) -> None:
        """What came until now was sent before now."""
        while select.select([self._socket], [], [], 0)[0]:
            self._socket.recv(4096)
        self.heard.clear()

    def silent_for(self, silence_s: float) -> bool:
        return not select.select([self._socket], [], [], silence_s)[0]

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path)
    yield made
    made.close()


@pytest.fixture
def start(tmp_path: Path, manager: Manager) -> Iterator[Callable[..., Daemon]]:
    """Starts the daemon where no network answers, as the service manager would."""
    nobody = "127.0.0.1:9"
    config = tmp_path / "agent.toml"
    config.write_text(
        CONFIG.format(
            cdm_url=f"http://{nobody}/config.json", origin=nobody, folder=tmp_path, concurrency=8, rate_hz=0
        )
    )
    daemons: list[Daemon] = []

    def begin(python: Sequence[str] = ("-m", "device_agent"), **environment: str) -> Daemon:
        told = {
            "BLOCKS_API_KEY": "bk_device",
            "NOTIFY_SOCKET": str(manager.path),
            "WATCHDOG_USEC": str(round(WATCHDOG_S * 1_000_000)),
        }
        daemons.append(Daemon(tmp_path, config, told | environment, python=python))
        return daemons[-1]

    yield begin
    for daemon in daemons:
        if daemon.process.poll() is None:
            daemon.process.send_signal(signal.SIGCONT)
            daemon.kill()


def is_ready(word: str) -> bool:
    return "READY=1" in word.split("\n")


def is_alive(word: str) -> bool:
    return word == "WATCHDOG=1"


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_ready_without_a_network_then_alive_then_stopping(
    start: Callable[..., Daemon], manager: Manager
) -> None:
    daemon = start()
    manager.hear(is_ready)
    manager.hear(lambda word: word == "STATUS=unreachable; 5 of 5 devices online")
    daemon.ask("estop")
    manager.hear(lambda word: word == "STATUS=unreachable; 5 of 5 devices online; emergency stop")
    for _ in range(3):
        manager.hear(is_alive)
    daemon.process.send_signal(signal.SIGTERM)
    manager.hear(lambda word: word == "STOPPING=1")
    assert daemon.process.wait(LIMIT_S) == 0


def test_no_sign_of_life_while_nothing_runs(start: Callable[..., Daemon], manager: Manager) -> None:
    daemon = start()
    manager.hear(is_ready)
    manager.hear(is_alive)
    daemon.process.send_signal(signal.SIGSTOP)
    until(lambda: _state(daemon.process.pid) == "T", "the process stopped")
    manager.forget()
    assert manager.silent_for(WATCHDOG_S), "a process that does not run cannot say that it is alive"
    daemon.process.send_signal(signal.SIGCONT)
    manager.hear(is_alive)


def test_a_watchdog_meant_for_another_process_is_not_fed(
    start: Callable[..., Daemon], manager: Manager
) -> None:
    daemon = start(WATCHDOG_PID=str(os.getpid()))
    manager.hear(is_ready)
    with pytest.raises(AssertionError, match="not heard"):
        manager.hear(is_alive, WATCHDOG_S)
    assert daemon.stop() == 0
    manager.hear(lambda word: word == "STOPPING=1")
    assert not any(is_alive(word) for word in manager.heard)


def test_it_runs_where_no_memory_may_become_executable(
    start: Callable[..., Daemon], manager: Manager
) -> None:
    daemon = start(python=("-c", SANDBOXED))
    until(lambda: daemon.process.poll() is not None or not manager.silent_for(0.02), "a first word")
    if daemon.process.poll() == NOT_HERE:
        pytest.skip("this kernel has no PR_SET_MDWE: it takes Linux 6.3")
    manager.hear(is_ready)
    manager.hear(is_alive)
    assert daemon.stop() == 0
