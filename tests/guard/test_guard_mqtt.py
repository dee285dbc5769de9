"""The guard's own MQTT client, byte by byte, against a broker that is a script."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from device_agent.guard import mqtt

LIMIT_S = 10.0
CONNACK, PUBACK = b"\x20\x02\x00\x00", b"\x40\x02\x00\x01"


@contextmanager
def broker(script: Callable[[socket.socket], None]) -> Iterator[int]:
    """The port of a broker that runs this script with its first client."""
    failures: list[BaseException] = []

    def serve() -> None:
        client, _ = listener.accept()
        with client:
            client.settimeout(LIMIT_S)
            try:
                script(client)
            except BaseException as error:  # noqa: BLE001 - raised again in the test
                failures.append(error)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(LIMIT_S)
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(LIMIT_S)
    assert not thread.is_alive()
    if failures:
        raise failures[0]


def action(port: int, *messages: tuple[str, bytes, bool], **options: Any) -> dict[str, Any]:
    plain = {"host": "127.0.0.1", "port": port, "username": None, "password": None, "tls": False}
    files = dict.fromkeys(("ca_file", "certificate_file", "key_file"))
    return {**plain, **files, "messages": list(messages), **options}


def received(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = client.recv(size - len(data))
        assert part, f"ended after {data!r}"
        data += part
    return data


def test_each_message_is_acknowledged_before_the_next() -> None:
    def script(client: socket.socket) -> None:
        hello = received(client, 32)
        assert hello[:2] == b"\x10\x1e"
        assert hello[2:12] == b"\x00\x04MQTT\x04\x02\x00\x1e", "clean session, no user, 30 s"
        assert hello[14:] == b"device-agent-guard"
        client.sendall(CONNACK)
        assert received(client, 11) == b"\x33\x09\x00\x03a/b\x00\x01of", "QoS 1, retained, number 1"
        client.sendall(PUBACK)
        assert received(client, 6) == b"\x32\x04\x00\x00\x00\x02"
        client.sendall(b"\x40\x02\x00\x02")
        assert received(client, 2) == b"\xe0\x00"

    with broker(script) as port:
        mqtt.publish(action(port, ("a/b", b"of", True), ("", b"", False)))


def test_user_and_password_go_along() -> None:
    def script(client: socket.socket) -> None:
        hello = received(client, 32 + 5 + 4)
        assert hello[9] == 0xC2
        assert hello.endswith(b"\x00\x03ann\x00\x02pw")
        client.sendall(CONNACK)
        assert received(client, 2) == b"\xe0\x00"

    with broker(script) as port:
        mqtt.publish(action(port, username="ann", password="pw"))


@pytest.mark.parametrize("size", [119, 120, 16_375, 16_376])
def test_lengths_of_more_than_seven_bits(size: int) -> None:
    """The remaining length is size + 8: at 127, 128, 16 383 and 16 384."""
    length = size + 8

    def script(client: socket.socket) -> None:
        received(client, 32)
        client.sendall(CONNACK)
        head = received(client, 2)
        value, shift = head[1] & 0x7F, 7
        while head[-1] & 0x80:
            head += received(client, 1)
            value |= (head[-1] & 0x7F) << shift
            shift += 7
        assert value == length
        assert received(client, length).endswith(b"x" * size)
        client.sendall(PUBACK)
        received(client, 2)

    with broker(script) as port:
        mqtt.publish(action(port, ("abcd", b"x" * size, False)))


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"\x20\x02\x00\x05", ConnectionRefusedError),
        (b"\x30\x02\x00\x00", ConnectionError),
        (b"\x20\x80\x01", ConnectionError),
        (b"\x20", ConnectionResetError),
    ],
)
def test_any_other_answer_is_a_failure(answer: bytes, error: type[OSError]) -> None:
    def script(client: socket.socket) -> None:
        received(client, 32)
        client.sendall(answer)

    with broker(script) as port, pytest.raises(error):
        mqtt.publish(action(port, ("a", b"b", False)))


def test_a_message_that_is_not_acknowledged_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "LIMIT_S", 0.2)

    def script(client: socket.socket) -> None:
        received(client, 32)
        client.sendall(CONNACK)
        while client.recv(100):
            pass

    with broker(script) as port, pytest.raises(TimeoutError):
        mqtt.publish(action(port, ("a", b"b", False)))


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        mqtt.publish(action(port))
