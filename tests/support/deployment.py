"""A whole deployment: the daemon on a simulated board, on the network stand-in, with its configuration."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import pytest

from device_agent.testing.network import NetworkThread
from support.processes import BoardProcess, Daemon
from support.waiting import until

AGENT = "greenhouse_7"

HEAD = """
[agent]
name = "greenhouse_7"
[network]
cdm_url = "{cdm_url}"
pubnub_origin = "{origin}"
pubnub_tls = false
publish_rate_hz = {rate_hz}
[state]
directory = "{folder}/state"
"""
"""How the template of a small configuration begins."""

CONFIG = """
[agent]
name = "greenhouse_7"
display_name = "Greenhouse 7"
description = "Climate and watering of greenhouse 7."
organization = "Example Farm"
tags = ["greenhouse"]
concurrency = {concurrency}

[network]
cdm_url = "{cdm_url}"
pubnub_origin = "{origin}"
pubnub_tls = false
publish_rate_hz = {rate_hz}

[state]
directory = "{folder}/state"

[safety]
lease_idle_s = 5
# A busy test machine must not look like a daemon that hangs.
guard_timeout_s = 10

[buses.i2c1]
kind = "i2c"
device = "/dev/i2c-1"
timeout_s = 0.5
[buses.pins]
kind = "gpio"
chip = "pinctrl-bcm2835"
timeout_s = 0.5
[buses.meter]
kind = "serial"
port = "/dev/ttyUSB0"
[buses.terminal]
kind = "serial"
port = "/dev/ttyUSB1"

[devices.climate]
driver = "bme280"
bus = "i2c1"
address = 0x76
every_s = 0.2
[devices.door]
driver = "gpio-input"
bus = "pins"
line = 17
debounce_s = 0.02
[devices.valve]
driver = "gpio-output"
bus = "pins"
line = 27
active_low = true
safe = false
max_on_s = 600
[devices.scale]
driver = "serial-lines"
bus = "meter"
format = "regex"
pattern = '^W +(?P<weight>-?[0-9.]+)'
command = "SP {{setpoint}}\\n"
[devices.scale.points]
weight = {{ unit = "g" }}
setpoint = {{ unit = "g", write = true, minimum = 0, maximum = 500, safe = 0 }}
[devices.console]
driver = "serial-bytes"
bus = "terminal"

[streams.telemetry]
direction = "outbound"
affinity = "shared"
devices = ["climate", "door", "scale"]
[streams.control]
direction = "bidirectional"
devices = ["valve", "door", "scale", "climate"]
link_loss_grace_s = 1.5
[streams.orders]
direction = "inbound"
devices = ["valve"]
[streams.console]
direction = "bidirectional"
format = "bytes"
devices = ["console"]

[access]
drive = ["user:user_alice", "user:user_bob"]
"""


def is_at_work(device: Mapping[str, Any]) -> bool:
    """Online, or open and yet to be heard: one that speaks by itself is online once it was understood."""
    return device["state"] == "online" or device.get("detail") == "has said nothing yet"


class World:
    """Everything, ended in order."""

    def __init__(
        self,
        folder: Path,
        net: NetworkThread,
        *,
        config: str = CONFIG,
        link: str = "main",
        simulated: bool = True,
        **options: Any,
    ) -> None:
        """`config` is a template of these options; `link` is the port of the network that the daemon uses."""
        self.folder = folder
        self.net = net
        self.config = folder / "agent.toml"
        at = net.net.links[link].addresses
        values = {"concurrency": 8, "rate_hz": 0, **options}
        text = config.format(cdm_url=at["cdm_url"], origin=at["pubnub_origin"], folder=folder, **values)
        self.config.write_text(text + values.get("more", ""))
        self.board = BoardProcess(folder, self.config) if simulated else None
        self.daemons: list[Daemon] = []

    def start(self, *, joined: bool = True) -> Daemon:
        environment, words = {"BLOCKS_API_KEY": "bk_device"}, []
        if self.board is not None:
            environment["DEVICE_AGENT_BOARD"] = str(self.board.socket)
            words.append("--simulate")
        daemon = Daemon(self.folder, self.config, environment, words)
        self.daemons.append(daemon)
        if joined:
            daemon.wait_logged("joined")
            until(lambda: all(map(is_at_work, daemon.ask("status")["devices"])), "devices online")
        return daemon

    @property
    def daemon(self) -> Daemon:
        return self.daemons[-1]

    def close(self) -> None:
        for daemon in self.daemons:
            if daemon.process.poll() is None:
                daemon.end()
        if self.board is not None:
            self.board.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.fixture
def new_world(net: NetworkThread, tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Makes a world with other options than usual."""
    worlds: list[World] = []

    def make(**options: Any) -> World:
        worlds.append(World(tmp_path, net, **options))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()


def send(world: World, message: Any) -> None:
    """A raw control message, targeted at this very instance."""
    instance = world.daemon.ask("status")["instance"]
    world.net.call(lambda: world.net.net.send_control(AGENT, message, {"instance": instance}))


def start_of(world: World, session: Any) -> dict[str, Any]:
    """The StartTask of a session's task as the control channel carried it."""
    net = world.net.net
    return dict(world.net.call(net.backend.start_message, net.task(session.task_id)))
