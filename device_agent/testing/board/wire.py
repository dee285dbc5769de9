"""Frames between a board and its clients: four bytes of length, big-endian, then one msgpack value."""

import socket
import struct
from typing import Any

import msgpack

_LENGTH = struct.Struct(">I")
RECEIVE_SIZE = 1 << 16


def framed(value: Any) -> bytes:
    """One value as it goes over the socket."""
    body: bytes = msgpack.packb(value)
    return _LENGTH.pack(len(body)) + body


class Frames:
    """Whole values over a stream socket. `receive` blocks as the socket does."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = bytearray()

    def send(self, value: Any) -> None:
        self.sock.sendall(framed(value))

    def receive(self) -> Any:
        """The next value. Raises EOFError when the other side has gone."""
        while True:
            whole, value = self.take()
            if whole:
                return value
            self.fill()

    def fill(self) -> None:
        """One `recv` into the buffer. Raises EOFError, or what the socket raises."""
        data = self.sock.recv(RECEIVE_SIZE)
        if not data:
            raise EOFError
        self._buffer += data

    def take(self) -> tuple[bool, Any]:
        """A value that is here already; (False, None) if none is whole yet."""
        if len(self._buffer) < _LENGTH.size:
            return False, None
        end = _LENGTH.size + _LENGTH.unpack_from(self._buffer)[0]
        if len(self._buffer) < end:
            return False, None
        value = msgpack.unpackb(bytes(self._buffer[_LENGTH.size : end]), use_list=False, strict_map_key=False)
        del self._buffer[:end]
        return True, value
