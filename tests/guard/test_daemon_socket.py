"""The guard's end of its socket: whole messages, descriptors that go along, clients that are gone."""

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_agent.guard.daemon_socket import FDS_MAX, MESSAGE_MAX_BYTES, DaemonSocket, bound, pack


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[tuple[DaemonSocket, socket.socket]]:
    """The guard's end, and a daemon's."""
    listener = bound(str(tmp_path / "guard.sock"))
    daemon = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    daemon.connect(str(tmp_path / "guard.sock"))
    guard = DaemonSocket(listener)
    yield guard, daemon
    guard.close()
    daemon.close()
    listener.close()


def test_only_its_user_may_connect(tmp_path: Path) -> None:
    listener = bound(str(tmp_path / "guard.sock"))
    assert stat.S_IMODE((tmp_path / "guard.sock").stat().st_mode) == 0o600
    listener.close()


def test_a_place_that_cannot_be_bound_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        bound(str(tmp_path / "missing" / "guard.sock"))


def test_messages_come_whole_and_in_order(ends: tuple[DaemonSocket, socket.socket]) -> None:
    guard, daemon = ends
    assert guard.receive() is None
    messages = [{"op": "beat", "n": 1}, {"op": "keep", "data": b"\0\xff" * 20_000, "none": None, "f": 1.5}]
    for message in messages:
        daemon.send(pack(message))
    assert [guard.receive(), guard.receive(), guard.receive()] == [(messages[0], []), (messages[1], []), None]


def test_the_largest_message_fits(ends: tuple[DaemonSocket, socket.socket]) -> None:
    guard, daemon = ends
    daemon.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MESSAGE_MAX_BYTES)
    message = {"op": "keep", "data": b"x" * (MESSAGE_MAX_BYTES - 100)}
    daemon.send(pack(message))
    assert guard.receive() == (message, [])


def test_descriptors_go_along_and_are_not_inherited(ends: tuple[DaemonSocket, socket.socket]) -> None:
    guard, daemon = ends
    reading, writing = os.pipe()
    socket.send_fds(daemon, [pack({"op": "keep"})], [writing] * FDS_MAX)
    os.close(writing)
    received = guard.receive()
    assert received is not None
    fds = received[1]
    assert len(fds) == FDS_MAX
    assert not any(os.get_inheritable(fd) for fd in fds)
    os.write(fds[-1], b"off")
    assert os.read(reading, 3) == b"off"
    for fd in (*fds, reading):
        os.close(fd)


def test_the_end_of_the_daemon_comes_after_its_last_message(ends: tuple[DaemonSocket, socket.socket]) -> None:
    guard, daemon = ends
    daemon.send(pack({"op": "bye"}))
    daemon.close()
    assert guard.receive() == ({"op": "bye"}, [])
    with pytest.raises(EOFError):
        guard.receive()
    assert not guard.send({"op": "beat"})


def test_a_stopped_daemon_does_not_block_the_guard(ends: tuple[DaemonSocket, socket.socket]) -> None:
    guard, _ = ends
    message = {"op": "report", "report": ["x" * 1000]}
    sent = 0
    while guard.send(message):
        sent += 1
        assert sent < 100_000
    assert sent > 0
