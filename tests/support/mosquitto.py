"""Waiting at a descriptor, and a real broker to talk to."""

import select
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

LIMIT_S = 30.0


def collected(source: Any, enough: Callable[[list[Any]], bool], limit_s: float = LIMIT_S) -> list[Any]:
    """Drain a source, waiting at its descriptor, until what came is enough."""
    got: list[Any] = []
    deadline_s = time.monotonic() + limit_s
    poll = select.poll()
    poll.register(source.fileno(), select.POLLIN)
    while not enough(got):
        left_s = deadline_s - time.monotonic()
        assert left_s > 0, f"not enough within {limit_s:g} s: {got}"
        poll.poll(left_s * 1000)
        got += source.drain()
    return got


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Broker:
    """One mosquitto on a loopback port."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("mosquitto") is None:
            pytest.skip("mosquitto is not installed (apt-get install mosquitto)")
        self.folder = folder
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *lines: str) -> None:
        config = self.folder / "mosquitto.conf"
        own = (f"listener {self.port} 127.0.0.1", "allow_anonymous true", "persistence false", "user root")
        named = {line.split()[0] for line in lines}
        config.write_text("\n".join([line for line in own if line.split()[0] not in named] + [*lines, ""]))
        with (self.folder / "mosquitto.log").open("ab") as log:
            self.process = subprocess.Popen(["mosquitto", "-c", str(config)], stdout=log, stderr=log)
        deadline_s = time.monotonic() + LIMIT_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                log_text = (self.folder / "mosquitto.log").read_text()
                assert self.process.poll() is None, log_text
                assert time.monotonic() < deadline_s, log_text
                time.sleep(0.02)

    def stop(self) -> None:
        process, self.process = self.process, None
        if process is not None:
            process.terminate()
            process.wait(LIMIT_S)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """One that a test starts."""
    made = Broker(tmp_path)
    yield made
    made.stop()
