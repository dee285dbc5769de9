"""What lies between a client and its broker, and may fail: a line that holds, a line that is cut."""

import contextlib
import socket
import threading

from support.mosquitto import free_port

# Of a CONNECT packet: type, length, the protocol's name; then its version.
VERSION_AT = 8
TOO_NEW = bytes((0x20, 2, 0, 1))
"""A CONNACK of MQTT 3.1.1: the version is not served."""


class BrokerProxy:
    """`newest`: clients of newer versions of MQTT are refused, as a broker does that does not know them."""

    def __init__(self, to_port: int, newest: int = 5) -> None:
        self.port = free_port()
        self.versions: list[int] = []
        self._to_port = to_port
        self._newest = newest
        self._inward = threading.Event()
        self._inward.set()
        self._each: list[threading.Event] = []
        """Of each connection that came through, in their order."""
        self._cut = False
        self._open: set[socket.socket] = set()
        self._server = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def hold(self, connection: int | None = None) -> None:
        """What the broker sends stays on the way: to all, or to this one, counted from 0."""
        (self._inward if connection is None else self._each[connection]).clear()

    def release(self) -> None:
        """It arrives."""
        for gate in (self._inward, *self._each):
            gate.set()

    def cut(self) -> None:
        """All connections break, and nobody comes through."""
        self._cut = True
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def heal(self) -> None:
        self._cut = False

    def close(self) -> None:
        self.cut()
        self.release()
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            if self._cut:
                client.close()
            else:
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            first = client.recv(65_536)
        except OSError:
            first = b""
        if not first:
            client.close()
            return
        if len(first) > VERSION_AT:
            self.versions.append(first[VERSION_AT])
            if first[VERSION_AT] > self._newest:
                client.sendall(TOO_NEW)
                client.close()
                return
        try:
            broker = socket.create_connection(("127.0.0.1", self._to_port))
        except OSError:
            client.close()
            return
        self._open |= {client, broker}
        broker.sendall(first)
        threading.Thread(target=self._pump, args=(client, broker), daemon=True).start()
        self._each.append(threading.Event())
        self._each[-1].set()
        self._pump(broker, client, self._inward, self._each[-1])
        for one in (client, broker):
            self._open.discard(one)
            one.close()

    def _pump(self, source: socket.socket, to: socket.socket, *gates: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                for gate in gates:
                    gate.wait()
                to.sendall(data)
        for one in (source, to):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
