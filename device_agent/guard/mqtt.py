"""One connection to a broker for a few messages at QoS 1, by hand (MQTT 3.1.1): a library would be large."""

from __future__ import annotations

import _socket
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CONNECT, CONNACK, PUBLISH_QOS_1, PUBACK, DISCONNECT = 0x10, 0x20, 0x32, 0x40, 0xE0
RETAIN = 0x01
CLEAN_SESSION, WITH_PASSWORD, WITH_USERNAME = 0x02, 0x40, 0x80
PROTOCOL_LEVEL = 4
KEEPALIVE_S = 30
# Not the daemon's: the broker would end the connection of a daemon that is only stopped.
CLIENT_ID = "device-agent-guard"
# One call on the socket; the whole is tried again when it runs out.
LIMIT_S = 2.0


def prepare(action: dict[str, Any]) -> None:
    """Load TLS where it is needed: it is larger than all the rest of the guard."""
    if action["tls"]:
        import socket as socket
        import ssl as ssl


def publish(action: dict[str, Any]) -> None:
    """Connect, send the messages, each acknowledged, and leave. Raises OSError."""
    sock = _connected(action)
    try:
        sock.sendall(_hello(action["username"], action["password"]))
        if (answer := _packet(sock, CONNACK)) != b"\0\0":
            raise ConnectionRefusedError(f"the broker refuses: {answer.hex()}")
        for number, (topic, payload, retain) in enumerate(action["messages"], 1):
            body = _text(topic) + struct.pack(">H", number) + payload
            sock.sendall(_framed(PUBLISH_QOS_1 | (RETAIN if retain else 0), body))
            _packet(sock, PUBACK)
        sock.sendall(bytes((DISCONNECT, 0)))
    finally:
        sock.close()


def _connected(action: dict[str, Any]) -> Any:
    error: OSError = ConnectionError(f"{action['host']} has no address")
    found = _socket.getaddrinfo(action["host"], action["port"], 0, _socket.SOCK_STREAM)
    for family, kind, protocol, _, address in found:
        sock = _socket.socket(family, kind, protocol)
        try:
            sock.settimeout(LIMIT_S)
            sock.connect(address)
            return _wrapped(sock, action) if action["tls"] else sock
        except OSError as caught:
            sock.close()
            error = caught
    raise error


def _wrapped(plain: _socket.socket, action: dict[str, Any]) -> Any:
    import socket
    import ssl

    context = ssl.create_default_context(cafile=action["ca_file"])
    if action["certificate_file"] is not None:
        context.load_cert_chain(action["certificate_file"], action["key_file"])
    sock = socket.socket(fileno=plain.detach())
    sock.settimeout(LIMIT_S)
    try:
        return context.wrap_socket(sock, server_hostname=action["host"])
    except OSError:
        sock.close()
        raise


def _hello(username: str | None, password: str | None) -> bytes:
    flags = CLEAN_SESSION
    payload = _text(CLIENT_ID)
    if username is not None:
        flags |= WITH_USERNAME
        payload += _text(username)
        if password is not None:
            flags |= WITH_PASSWORD
            payload += _text(password)
    return _framed(CONNECT, _text("MQTT") + struct.pack(">BBH", PROTOCOL_LEVEL, flags, KEEPALIVE_S) + payload)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">H", len(data)) + data


def _framed(kind: int, body: bytes) -> bytes:
    """Seven bits of the length at a time, the lowest first."""
    size, length = b"", len(body)
    while True:
        length, low = divmod(length, 128)
        size += bytes((low | (0x80 if length else 0),))
        if not length:
            return bytes((kind,)) + size + body


def _packet(sock: Any, kind: int) -> bytes:
    """The body of the next packet, which must be of this kind; those that are awaited are short."""
    head = _exactly(sock, 2)
    if head[0] != kind or head[1] > 127:
        raise ConnectionError(f"the broker sent {head.hex()} instead of {kind:#04x}")
    return _exactly(sock, head[1])


def _exactly(sock: Any, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part: bytes = sock.recv(size - len(data))
        if not part:
            raise ConnectionResetError("the broker closed the connection")
        data += part
    return data
