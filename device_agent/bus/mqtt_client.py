"""The MQTT client of paho, which would take a message of any size into memory. Imported late, as paho is."""

import time
from typing import Any

from paho.mqtt.client import Client

# Enough for the longest topic.
PIECE_BYTES = 70_000


class BoundedClient(Client):
    """Of a message that is too large the middle is left out, so that it is acknowledged and can be dropped.

    Protocol 3.1.1 has no other way: whoever ends the connection gets a retained message again with the next.
    """

    def __init__(self, message_max_bytes: int, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._message_max_bytes = message_max_bytes
        self._left_out_bytes = 0
        self._asked_s = time.monotonic()
        self.proven_s = self._asked_s
        """All that comes from here on left the far end after this instant (monotonic)."""

    def prove(self, every_s: float) -> None:
        """Ask the far end for a sign of life, unless the last one is recent or still awaited.

        What it sends is in order: what comes after its answer it sent after the question.
        """
        now_s = time.monotonic()
        if self._ping_t == 0 and now_s - self._asked_s >= every_s:
            self._asked_s = now_s
            self._send_pingreq()

    def _handle_pingresp(self) -> Any:
        self.proven_s = self._asked_s
        return super()._handle_pingresp()

    def take_left_out(self) -> int:
        """How many bytes of the message that comes now were left out."""
        left_out_bytes, self._left_out_bytes = self._left_out_bytes, 0
        return left_out_bytes

    def _sock_recv(self, bufsize: int) -> bytes:
        """`bufsize` is what is missing of the packet. Its beginning has topic and number, and is kept."""
        data: bytes = super()._sock_recv(min(bufsize, PIECE_BYTES))
        if bufsize > self._message_max_bytes and len(self._in_packet["packet"]) >= PIECE_BYTES and data:
            self._in_packet["to_process"] -= len(data) - 1
            self._left_out_bytes += len(data) - 1
            return data[:1]
        return data
