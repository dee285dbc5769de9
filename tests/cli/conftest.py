"""The demo's world as a world for callers: real processes for network, board and daemon."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from device_agent.cli import demo_world
from device_agent.cli.demo_world import World
from support.owner import Owner

LIMIT_S = 60.0
MORE = """
[history]
enabled = true
[buses.terminal]
kind = "serial"
port = "/dev/ttyUSB1"
[devices.console]
driver = "serial-bytes"
bus = "terminal"
[streams.console]
direction = "bidirectional"
format = "bytes"
devices = ["console"]
[streams.weather]
direction = "outbound"
affinity = "shared"
devices = ["climate", "door"]
"""


class Done(subprocess.CompletedProcess[str]):
    """What a call printed, and its exit code."""


class Calls:
    """Runs `device-agent call demo_greenhouse …` as a process."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.url = f"http://127.0.0.1:{world.port}"

    @property
    def owner(self) -> Owner:
        """Of the device that is called."""
        return Owner(self.world._folder / "agent.toml")

    def begin(self, *words: str, key: str = demo_world.KEY, **options: Any) -> "subprocess.Popen[str]":
        environment = {k: v for k, v in os.environ.items() if not k.startswith("BLOCKS_")}
        if key:
            environment["BLOCKS_API_KEY"] = key
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        command = [sys.executable, "-m", "device_agent", "call", demo_world.AGENT, "--dev", self.url, *words]
        return subprocess.Popen(command, env=environment, **{"text": True, **pipes, **options})

    def end(self, process: "subprocess.Popen[str]", text: str | None = None) -> Done:
        try:
            out, err = process.communicate(text, timeout=LIMIT_S)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()
        assert "Traceback" not in err
        return Done(process.args, process.returncode, out, err)

    def __call__(self, *words: str, key: str = demo_world.KEY) -> Done:
        return self.end(self.begin(*words, key=key))

    def together(self, *calls: tuple[str, ...]) -> list[Done]:
        """Several at once, since most of a call is waiting."""
        return [self.end(process) for process in [self.begin(*words) for words in calls]]


@pytest.fixture(scope="module")
def calls() -> Iterator[Calls]:
    with World(MORE) as world:
        world.wait_joined()
        yield Calls(world)


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """For what must leave nothing behind."""
    with tempfile.TemporaryDirectory(prefix="da-", dir="/tmp") as folder:
        yield Path(folder)
