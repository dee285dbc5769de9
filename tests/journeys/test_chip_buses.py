"""SPI and 1-Wire: a relay whose own reading, and whose neighbour's, takes many transactions is obeyed."""

from functools import partial
from pathlib import Path

import pytest

from device_agent import registry
from support.processes import BoardProcess, Daemon
from support.waiting import until

# One reading is so many transactions of 30 ms each.
TRANSACTIONS = 80
# That may come in between, counted and not timed: a busy machine is slow at asking, too. A reading that is
# waited for has two thirds of them left.
BETWEEN_MAX = TRANSACTIONS / 2

DRIVERS = '''
import time
from pathlib import Path
from typing import Literal

from device_agent.bus.onewire import OneWireBus
from device_agent.bus.spi import SpiBus
from device_agent.driver import Actuator, ActuatorConfig, Point, Sensor
from device_agent.testing.chips import OneWireChip, SpiChip

COUNT, TAKES_S = {count}, 0.03
ON = Point("on", type="boolean", write=True)


class Noted:
    """What the chip was told and asked, in its order; of both processes that know it the board has one."""

    def note(self, what):
        with open(self.path, "a") as file:
            file.write(what + "\\n")


class SlowSpiConfig(ActuatorConfig):
    driver: Literal["slow-spi"] = "slow-spi"
    path: str


class SlowSpiChip(Noted, SpiChip):
    def __init__(self, config):
        super().__init__({{}})
        self.path = config.path

    def transfer(self, data, speed_hz):
        time.sleep(TAKES_S)
        self.note(bytes(data).decode() + "-relay")
        return data


class SlowSpi(Sensor[SlowSpiConfig, SpiBus], Actuator[SlowSpiConfig, SpiBus]):
    points = (ON,)

    @staticmethod
    def simulator(config):
        return SlowSpiChip(config)

    def open(self):
        self.on = False
        self.safe()

    def read(self):
        self.bus.transfer(b"begin")
        for _ in range(COUNT):
            self.bus.transfer(b"read")
        return {{"on": self.on}}

    def write(self, values):
        self.on = values["on"]
        self.bus.transfer(b"%d" % self.on)
        return {{}}


class SlowWireConfig(ActuatorConfig):
    driver: Literal["slow-w1"] = "slow-w1"
    device: str
    path: str


class SlowWireChip(Noted, OneWireChip):
    def __init__(self, config):
        super().__init__({{}})
        self.device, self.name = config.device, "meter" if config.device[-1] == "2" else "relay"
        self.path = config.path

    def read(self, file):
        self.note(f"{{file}}-{{self.name}}")
        return "x", TAKES_S

    def write(self, file, text):
        self.note(f"{{text}}-{{self.name}}")


class SlowWire(Sensor[SlowWireConfig, OneWireBus], Actuator[SlowWireConfig, OneWireBus]):
    points = (ON,)

    @staticmethod
    def simulator(config):
        return SlowWireChip(config)

    def open(self):
        self.on = False
        self.safe()

    def read(self):
        self.bus.read(self.config.device, "begin")
        for _ in range(COUNT):
            self.bus.read(self.config.device, "read")
        return {{"on": self.on}}

    def write(self, values):
        self.on = values["on"]
        self.bus.write(self.config.device, "output", f"{{self.on:d}}")
        return {{}}
'''

HEAD = """
[agent]
name = "chips"
[network]
kind = "none"
[state]
directory = "{folder}/state"
[safety]
guard_timeout_s = 60
"""
BUSES = {
    "spi": """
[buses.chips]
kind = "spi"
device = "/dev/spidev0.0"
timeout_s = 20
[devices.relay]
driver = "slow-spi"
bus = "chips"
safe = false
every_s = 0.1
path = "{folder}/asked"
""",
    # A neighbour reads as slowly.
    "w1": """
[buses.chips]
kind = "w1"
timeout_s = 20
[devices.relay]
driver = "slow-w1"
bus = "chips"
device = "3a-000000000001"
safe = false
every_s = 0.1
path = "{folder}/asked"
[devices.meter]
driver = "slow-w1"
bus = "chips"
device = "3a-000000000002"
safe = false
every_s = 0.1
path = "{folder}/asked"
""",
}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The drivers on the path of daemon and board, as pip would leave them."""
    info = tmp_path / "site" / "slow_chips-1.0.dist-info"
    info.mkdir(parents=True)
    (tmp_path / "site" / "slow_chips.py").write_text(DRIVERS.format(count=TRANSACTIONS))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: slow-chips\nVersion: 1.0\n")
    names = "slow-spi = slow_chips:SlowSpi\nslow-w1 = slow_chips:SlowWire\n"
    (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{names}")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))


@pytest.mark.parametrize("kind", BUSES)
def test_a_command_and_a_stop_wait_for_one_transaction(kind: str, tmp_path: Path, installed: None) -> None:
    config = tmp_path / "agent.toml"
    config.write_text((HEAD + BUSES[kind]).format(folder=tmp_path))
    asked = tmp_path / "asked"
    board = BoardProcess(tmp_path, config)
    daemon = Daemon(tmp_path, config, {"DEVICE_AGENT_BOARD": str(board.socket)})

    def noted() -> list[str]:
        return asked.read_text().split() if asked.exists() else []

    def under_way(who: str) -> int:
        """How long the record is while this one's reading has begun and is far from its end; else 0."""
        record = noted()
        turned = [word for word in record if word.startswith(("begin", "read"))]
        last = max((n for n, word in enumerate(turned) if word.startswith("begin")), default=0)
        begun = turned[last:][:1] == [f"begin-{who}"] and len(turned) - last in range(3, TRANSACTIONS // 3)
        return len(record) if begun else 0

    try:
        until(lambda: daemon.logged("ready") and daemon.device("relay")["state"] == "online", "the relay")
        for who in ("relay",) if kind == "spi" else ("meter", "relay"):
            count = until(partial(under_way, who), f"a reading of the {who}")
            answer = daemon.ask("set", device="relay", values={"on": True})
            assert answer["state"] == "done", answer
            assert noted()[count:].index("1-relay") <= BETWEEN_MAX
        count = until(partial(under_way, "relay"), "a reading of the relay")
        assert daemon.ask("estop")["relay"] is True
        assert noted()[count:].index("0-relay") <= BETWEEN_MAX
        # What was given up began anew, and comes to its end.
        until(lambda: noted()[-TRANSACTIONS:] == ["read-relay"] * TRANSACTIONS, "a whole reading")
        assert not [event for event in daemon.events() if event["event"] == "device_lost"]
    finally:
        daemon.stop()
        board.stop()
