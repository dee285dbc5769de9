"""The guard's process: how little it is, whom it listens to, what it remembers and tells."""

import compileall
import marshal
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import device_agent.guard
from device_agent.guard import PROTOCOL
from device_agent.safety import guard_connection
from support.guarded_daemon import Service, alive, listener_of
from support.waiting import LIMIT_S, until

ROOT = Path(__file__).parents[2]
# What the guard may have loaded besides what the bare interpreter has; each name costs memory on every board.
LIGHT = {
    "__future__", "_collections_abc", "_socket", "_stat", "_struct", "binascii", "errno", "fcntl", "gc",
    "genericpath", "os", "os.path", "posixpath", "select", "stat", "struct",
}  # fmt: skip
OWN_MEMORY_MAX_KB = 5000


def test_it_loads_next_to_nothing() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); before = set(sys.modules); "
        "import device_agent.guard.process, device_agent.guard.log; print(*(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, ROOT], capture_output=True, text=True, check=True
    )
    loaded = {name for name in done.stdout.split() if not name.startswith("device_agent")}
    assert loaded <= LIGHT


@pytest.fixture
def compiled() -> None:
    """A process that compiles its modules, as the first one after an installation does, needs more memory."""
    compileall.compile_dir(Path(device_agent.guard.__file__).parent, quiet=2)


def test_it_takes_little_memory(compiled: None, service: Service, client) -> None:
    client().ask(**HELLO)
    sizes = {}
    for line in Path(f"/proc/{service.process.pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        sizes[name] = int(rest.split()[0])
    print(f"guard: {sizes['Rss']} kB resident, {sizes['Anonymous']} kB of its own")
    assert sizes["Anonymous"] < OWN_MEMORY_MAX_KB


def test_it_runs_before_others_and_says_where_it_may_not(tmp_path: Path, client: Any) -> None:
    try_it = "import os; os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))"
    may = (
        subprocess.run([sys.executable, "-c", try_it], check=False, stderr=subprocess.DEVNULL).returncode == 0
    )
    one = client()
    slow = one.ask(**HELLO)["slow"]
    assert ("no real-time priority" not in slow) is may
    policy = os.sched_getscheduler(one.service.process.pid)
    assert policy == (os.SCHED_FIFO if may else os.SCHED_OTHER)


class Client:
    """Speaks to a guard as a daemon does."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(LIMIT_S)
        # The socket is there a moment before the guard listens.
        until(lambda: self._connected(service.path), "the guard listens")

    def _connected(self, path: Path) -> bool:
        try:
            self.sock.connect(str(path))
        except ConnectionRefusedError:
            return False
        return True

    def say(self, *fds: int, **message: Any) -> None:
        socket.send_fds(self.sock, [marshal.dumps(message, 2)], list(fds))

    def ask(self, **message: Any) -> Any:
        self.say(**message)
        return self.heard()

    def heard(self) -> Any:
        return marshal.loads(self.sock.recv(65_536))

    def keep(self, fd: int, device: str = "valve") -> None:
        act = {
            "kind": "bytes",
            "steps": [b"safe"],
            "answer": b"",
            "fd": True,
            "hold": True,
            "exclusive": False,
        }
        self.say(fd, op="keep", device=device, place="pins", acts=[act])

    def close(self) -> None:
        self.sock.close()


@pytest.fixture
def client(service: Service) -> Iterator[Callable[[], Client]]:
    made: list[Client] = []

    def make() -> Client:
        made.append(Client(service))
        return made[-1]

    yield make
    for client in made:
        client.close()


HELLO = {"op": "hello", "protocol": PROTOCOL, "timeout_s": 60.0, "devices": ["valve"]}


@pytest.fixture
def line() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.settimeout(LIMIT_S)
    yield ours, theirs
    ours.close()
    theirs.close()


def test_a_signal_that_ends_no_wait_ends_it_all_the_same(tmp_path: Path) -> None:
    """As one that comes just before a wait; here another thread takes it."""
    code = (
        "import signal, sys, threading; "
        "threading.Thread(target=threading.Event().wait, daemon=True).start(); "
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]); "
        "from device_agent.guard.__main__ import main; main(sys.argv[1:])"
    )
    path = tmp_path / "guard.sock"
    process = subprocess.Popen([sys.executable, "-c", code, "--socket", path], stderr=subprocess.DEVNULL)
    try:
        until(lambda: listener_of(path) == process.pid, "its socket")
        process.terminate()
        assert process.wait(LIMIT_S) == 0
    finally:
        process.kill()
        process.wait(LIMIT_S)


def test_only_one_daemon_at_a_time(client) -> None:
    first, second = client(), client()
    assert first.ask(**HELLO)["op"] == "welcome"
    assert second.ask(**HELLO)["op"] == "refused"
    first.say(op="bye", safe=[])
    first.close()
    until(lambda: client().ask(**HELLO)["op"] == "welcome", "a welcome")


def test_nothing_happens_after_an_orderly_end(client, line) -> None:
    ours, theirs = line
    first = client()
    first.ask(**HELLO)
    first.keep(theirs.fileno())
    first.say(op="bye", safe=["valve"])
    first.close()
    second = client()
    welcome = second.ask(**HELLO)
    assert (welcome["held"], welcome["report"]) == (["valve"], [])
    theirs.close()
    second.ask(op="release", device="valve")
    assert ours.recv(100) == b""  # let go, and nothing written before


def test_reports_are_repeated_until_they_are_recorded(client, line) -> None:
    ours, theirs = line
    first = client()
    first.ask(**HELLO)
    first.keep(theirs.fileno())
    first.close()
    assert ours.recv(100) == b"safe"
    for noted in (False, True):
        daemon = client()
        # It may be at work on it still when the daemon comes: then it is told a moment later.
        report = daemon.ask(**HELLO)["report"] or daemon.heard()["report"]
        assert [(entry["device"], entry["result"]) for entry in report] == [("valve", "done")]
        if noted:
            daemon.say(op="noted", count=1)
        daemon.say(op="bye", safe=["valve"])
        daemon.close()
    assert client().ask(**HELLO)["report"] == []


def test_devices_that_left_the_configuration_are_released(client, line) -> None:
    ours, theirs = line
    first = client()
    first.ask(**HELLO)
    first.keep(theirs.fileno())
    first.say(op="bye", safe=["valve"])
    first.close()
    theirs.close()
    assert client().ask(**{**HELLO, "devices": ["pump"]})["held"] == []
    assert ours.recv(100) == b""


def test_a_hang_is_a_silence_of_that_length_and_back_begins_anew(client, line) -> None:
    ours, theirs = line
    daemon = client()
    daemon.ask(**{**HELLO, "timeout_s": 0.3})
    daemon.keep(theirs.fileno())
    for _ in range(2):
        assert ours.recv(100) == b"safe"
        assert daemon.heard()["op"] == "took"
        assert daemon.heard()["report"][0]["result"] == "done"
        daemon.say(op="back")


def test_a_silence_is_waited_out_while_all_is_safe_and_nothing_moves(client, line) -> None:
    ours, theirs = line
    daemon = client()
    daemon.ask(**{**HELLO, "timeout_s": 0.3})
    daemon.keep(theirs.fileno())
    assert daemon.ask(op="beat", n=1, calm=True) == {"op": "beat", "n": 1}
    ours.settimeout(1.0)
    with pytest.raises(TimeoutError):
        ours.recv(100)
    ours.settimeout(LIMIT_S)
    daemon.say(op="moves")
    assert ours.recv(100) == b"safe"
    assert daemon.heard()["op"] == "took"


def test_a_guard_of_another_version_makes_room(service: Service, client) -> None:
    assert client().ask(**{**HELLO, "protocol": PROTOCOL + 1})["protocol"] == PROTOCOL
    client().say(op="end")
    until(lambda: not alive(service.process.pid), "the guard's end")
    assert not service.path.exists()


async def test_the_daemon_ends_a_guard_that_does_not_wake(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(guard_connection, "ANSWER_LIMIT_S", 0.1)
    monkeypatch.setattr(guard_connection, "WAKE_LIMIT_S", 0.1)
    path = tmp_path / "guard.sock"
    code = (
        "import sys, time; from device_agent.guard.daemon_socket import bound; "
        "from device_agent.guard.notes import lock; "
        "kept = bound(sys.argv[1]); lock(sys.argv[1]); print(flush=True); time.sleep(600)"
    )
    deaf = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", code, path], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert deaf.stdout is not None
    deaf.stdout.readline()
    link, _ = await guard_connection.find_or_start(tmp_path, dict(HELLO), "text")
    assert deaf.wait(LIMIT_S) == -signal.SIGKILL
    deaf.stdout.close()
    assert link.process is not None
    monkeypatch.setattr(guard_connection, "ANSWER_LIMIT_S", LIMIT_S)
    assert (await link.answer(LIMIT_S))["op"] == "welcome"
    link.send({"op": "bye", "safe": []})
    link.close()
    link.process.wait(LIMIT_S)


async def test_the_daemon_ends_a_guard_of_another_version(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "old.sock"
    monkeypatch.setenv(guard_connection.GUARD_VARIABLE, str(path))
    old = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    old.bind(str(path))
    old.listen(1)
    heard: list[Any] = []

    def be_old() -> None:
        peer = old.accept()[0]
        with peer, old:
            heard.append(marshal.loads(peer.recv(10_000)))
            peer.send(marshal.dumps({"op": "welcome", "protocol": PROTOCOL - 1, "held": [], "report": []}, 2))
            heard.append(marshal.loads(peer.recv(10_000)))
            path.unlink()

    thread = threading.Thread(target=be_old)
    thread.start()
    link, welcome = await guard_connection.find_or_start(tmp_path, dict(HELLO), "text")
    thread.join()
    assert [message["op"] for message in heard] == ["hello", "end"]
    assert welcome is None
    assert link.process is not None
    link.send({"op": "bye", "safe": []})
    link.close()
    assert link.process.wait(LIMIT_S) == 0
