"""The far end of a serial line on a pseudo-terminal: it says what it is told, and answers questions."""

import os
import select
import threading
import tty
from collections.abc import Mapping

from device_agent.bus.config import SerialBusConfig
from device_agent.bus.serial_port import SerialPort


class SerialPeer:
    """`answers` maps what comes to what is said then; every byte that came is in `heard`."""

    def __init__(self, answers: Mapping[bytes, bytes] | None = None) -> None:
        self._master, slave = os.openpty()
        tty.setraw(slave)
        self.path = os.ttyname(slave)
        self._slave = slave  # kept open, so that the port may be opened again
        self.answers = dict(answers or {})
        self.heard = b""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def port(self, **options: object) -> SerialPort:
        """The near end, not opened yet."""
        table = {"kind": "serial", "port": self.path, **options}
        return SerialPort("line", SerialBusConfig.model_validate(table))

    def say(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._master, data[:1024]) :]

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        os.close(self._master)
        os.close(self._slave)

    def _listen(self) -> None:
        waiting = b""
        while not self._ended.is_set():
            if not select.select([self._master], [], [], 0.05)[0]:
                continue
            data = os.read(self._master, 4096)
            self.heard += data
            waiting += data
            for question, answer in list(self.answers.items()):
                if question in waiting:
                    waiting = waiting.partition(question)[2]
                    self.say(answer)
