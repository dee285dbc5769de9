"""The examples of cards/: the daemon on a simulated board, and the caller script as a process of its own."""

import csv
import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from device_agent.testing.network import NetworkThread
from device_agent.testing.network.sdk import sdk_environment
from support.deployment import World
from support.waiting import LIMIT_S, until

CARDS = Path(__file__).parents[2] / "cards"
HERE = """
[state]
directory = "{folder}/state"
[safety]
guard_timeout_s = 10
"""


class Example(World):
    """A world of one of the examples; only network and state directory are the test's."""

    def __init__(self, folder: Path, net: NetworkThread, name: str) -> None:
        text = (CARDS / f"{name}.toml").read_text().replace("{", "{{").replace("}", "}}")
        here = 'cdm_url = "{cdm_url}"\npubnub_origin = "{origin}"\npubnub_tls = false\n'
        if "[network]\n" in text:
            text = text.replace("[network]\n", "[network]\n" + here)
        else:
            text += "\n[network]\n" + here
        super().__init__(folder, net, config=text + HERE)
        self.name = name
        self.start()

    def call(self, *words: str) -> "Caller":
        return Caller(self, [str(CARDS / f"{self.name}_caller.py"), *words])


class Caller:
    """A caller script at work; its output as it comes."""

    def __init__(self, world: Example, words: list[str]) -> None:
        environment = sdk_environment(world.net.net.cdm_url, world.net.net.pubnub_origin, "bk_9")
        self.process = subprocess.Popen(
            [sys.executable, "-u", *words],
            env={**os.environ, **environment, "LOG_LEVEL": "error"},
            cwd=world.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line

    def wait_said(self, words: str) -> None:
        until(lambda: words in self.said, f"{words!r} in {self.said!r}")

    def ends(self) -> int:
        if self.process.stdin is not None and not self.process.stdin.closed:
            self.process.stdin.close()
        code = self.process.wait(LIMIT_S * 2)
        self._reader.join(LIMIT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@pytest.fixture
def example(net: NetworkThread, tmp_path: Path) -> Iterator[Callable[[str], Example]]:
    worlds: list[Example] = []

    def make(name: str) -> Example:
        worlds.append(Example(tmp_path, net, name))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()


def test_every_example_is_whole() -> None:
    names = {path.stem for path in CARDS.glob("*.toml")}
    assert names >= {"greenhouse", "weather_station", "printer_console", "energy_meter", "relay_board"}
    told = (CARDS / "README.md").read_text()
    for name in names:
        assert f"{name}.toml" in told
        assert (CARDS / f"{name}_caller.py").exists() == (f"{name}_caller.py" in told)


def test_greenhouse(example: Callable[[str], Example]) -> None:
    world = example("greenhouse")
    world.board.do("chip", "climate", "humidity=35", "temperature=24.5")
    until(lambda: "35" in world.board.do("show"), "dry air")
    caller = world.call("--below", "60", "--seconds", "1", "--picture", "climate.png")
    assert caller.ends() == 0, caller.said
    assert "35 %" in caller.said or "watering" in caller.said
    assert "watering for 1 s, verified: True" in caller.said
    assert (world.folder / "climate.png").read_bytes().startswith(b"\x89PNG")
    until(lambda: world.board.levels(27)[-1] == 1, "the valve closed again")
    assert 0 in world.board.levels(27)


def test_weather_station(example: Callable[[str], Example]) -> None:
    world = example("weather_station")
    caller = world.call("--minutes", "0.2")
    until(lambda: world.daemon.ask("status")["sessions"], "a session")
    world.board.do("chip", "air", "temperature=-3")
    caller.wait_said("ALARM frost")
    for _ in range(3):
        world.board.do("pin", "pins", "24", "low")
        world.board.do("pin", "pins", "24", "high")
    assert caller.ends() == 3, caller.said
    assert "1 alarms" in caller.said


def test_printer_console(example: Callable[[str], Example]) -> None:
    world = example("printer_console")
    caller = world.call("--wait", "1")
    assert caller.process.stdin is not None
    caller.process.stdin.write("M105\n")
    caller.process.stdin.flush()
    until(lambda: "M105" in world.board.do("sent", "printer"), "the command at the printer")
    world.board.do("feed", "printer", "ok T:210.0 /210.0\\n")
    caller.wait_said("ok T:210.0")
    assert caller.ends() == 0, caller.said


def test_printer_prints_a_file(example: Callable[[str], Example]) -> None:
    world = example("printer_console")
    (world.folder / "part.gcode").write_text("G1 X1 Y1\n" * 3000 + "M84 ; end of part\n")
    caller = world.call("--send", "part.gcode")
    assert caller.ends() == 0, caller.said
    assert "done" in caller.said
    assert "end of part" in world.board.do("sent", "printer")


def test_energy_meter(example: Callable[[str], Example]) -> None:
    world = example("energy_meter")
    world.board.do("chip", "meter", "voltage=231.5", "power=1250")
    caller = world.call("--rows", "3", "--every", "2")
    assert caller.ends() == 0, caller.said
    rows = list(csv.DictReader(io.StringIO(caller.said)))
    assert len(rows) == 3
    assert float(rows[-1]["voltage"]) == pytest.approx(231.5)
    assert float(rows[-1]["power"]) == 1250
    seqs = [int(row["seq"]) for row in rows]
    assert seqs == sorted(seqs)


def test_relay_board(example: Callable[[str], Example]) -> None:
    world = example("relay_board")
    caller = world.call("lower", "--seconds", "0.5")
    assert caller.ends() == 0, caller.said
    assert [line for line in caller.said.splitlines() if "verified" in line or line == "watered"] == [
        "valve_lower on, verified",
        "pump on, verified",
        "pump off, verified",
        "valve_lower off, verified",
        "watered",
    ]
    assert world.board.levels(5)[-2:] == [0, 1]


def test_relay_board_stops_when_it_is_refused(example: Callable[[str], Example]) -> None:
    world = example("relay_board")
    world.daemon.ask("set", device="valve_lower", values={"on": True})
    until(lambda: world.board.levels(13)[-1] == 0, "the owner opened the lower valve")
    caller = world.call("upper", "--seconds", "60")
    assert caller.ends() == 1, caller.said
    assert "stopped: valve_upper" in caller.said
    assert world.board.levels(5)[-1] == 1
