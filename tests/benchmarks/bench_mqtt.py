"""The door to a broker, beside mqtt-io, with a mosquitto each.

    python tests/benchmarks/bench_mqtt.py [--json FILE] [--rounds N] [--smoke] [--alone]

`steady`: a hundred readings a second, until the subscriber has them: ten sensors ten times, and in mqtt-io,
which asks a sensor once a second at most, a hundred of its mock sensors.
`most`: as fast as it goes: lines of a pseudo-terminal into our daemon. (mqtt-io has no such source, and with
500 mock sensors it did not start within two minutes.)
`outage`: as `steady`, and the broker is away for 20 s; readings that never came. Ours are counted by `seq`,
mqtt-io's by the time that passed.
"""

import contextlib
import json
import os
import pty
import subprocess
import sys
import tempfile
import threading
import time
import tty
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench_measure import cpu_s, machine, memory_mb, note, parser, save, table
from bench_readings import installed
from bench_rig import until

from support.broker_client import BrokerClient
from support.mosquitto import Broker
from support.processes import BoardProcess, Daemon

SENSORS = 10
EVERY_S = 0.1
SETTLE_S = 3.0
OURS, THEIRS = "device-agent", "mqtt-io"
CONFIG = """
[agent]
name = "bench"
[network]
kind = "none"
[state]
directory = "{folder}/state"
[history]
enabled = false
[mqtt]
host = "127.0.0.1"
port = {port}
"""
SENSOR = """
[devices.s{n}]
driver = "i2c-registers"
bus = "i2c1"
address = {address}
every_s = {every_s}
points = {{ value = {{ register = 0, width_bits = 16 }} }}
"""
LINES = """
[buses.meter]
kind = "serial"
port = "{meter}"
baud = 921600
[devices.meter]
driver = "serial-lines"
bus = "meter"
format = "csv"
columns = ["n", "flow"]
[devices.meter.points]
n = {{ type = "integer" }}
flow = {{ unit = "L/min" }}
"""


def keeping(folder: Path) -> tuple[str, ...]:
    """A broker that keeps what a subscriber misses, over its own restarts too."""
    return "persistence true", f"persistence_location {folder}/", "max_queued_messages 0"


class Ours:
    """The daemon; what came is the distinct numbers of its readings."""

    name = OURS

    def __init__(self, folder: Path, tables: str, *, simulated: bool) -> None:
        self.broker = Broker(folder)
        self.broker.start(*keeping(folder))
        self.heard = BrokerClient(self.broker.port, "device-agent/bench/events", session=True)
        config = folder / "agent.toml"
        config.write_text(CONFIG.format(folder=folder, port=self.broker.port) + tables)
        self.board = BoardProcess(folder, config) if simulated else None
        environment = {"DEVICE_AGENT_BOARD": str(self.board.socket)} if self.board else {}
        self.daemon = Daemon(folder, config, environment, words=("--simulate",) if simulated else ())
        self.daemon.wait_logged("mqtt_joined")
        self.pid = self.daemon.process.pid

    def received(self) -> int:
        return len(
            {event["seq"] for one in list(self.heard.got) if (event := one.json())["kind"] == "reading"}
        )

    def lost(self, since_s: float, before: int) -> int:
        newest = max(self._numbers())
        with contextlib.suppress(AssertionError):  # what has not come by then never will
            until(lambda: not self._missing(newest), f"all events up to {newest}", 60)
        return self._missing(newest)

    def _numbers(self) -> set[int]:
        return {one.json()["seq"] for one in list(self.heard.got)}

    def _missing(self, newest: int) -> int:
        numbers = {number for number in self._numbers() if number <= newest}
        return newest - min(numbers) + 1 - len(numbers)

    def stop(self) -> None:
        self.heard.close()
        self.daemon.end()
        if self.board is not None:
            self.board.stop()
        self.broker.stop()


class Theirs:
    """mqtt-io; what came is its messages."""

    name = THEIRS

    def __init__(self, folder: Path, python: Path, sensors: int) -> None:
        self.sensors = sensors
        self.broker = Broker(folder)
        self.broker.start(*keeping(folder))
        self.heard = BrokerClient(self.broker.port, "bench/sensor/#", session=True)
        settings = {
            "mqtt": {"host": "127.0.0.1", "port": self.broker.port, "topic_prefix": "bench"},
            "sensor_modules": [{"name": "mock", "module": "mock"}],
            "sensor_inputs": [{"name": f"s{n}", "module": "mock", "interval": 1} for n in range(sensors)],
        }
        (folder / "config.yml").write_text(json.dumps(settings))  # which is YAML too
        self._log = (folder / "log.txt").open("wb")
        self.process = subprocess.Popen(
            [python, "-m", "mqtt_io", str(folder / "config.yml")], stdout=self._log, stderr=self._log
        )
        self.pid = self.process.pid
        until(lambda: self.received() >= SENSORS, f"ten readings of mqtt-io; see {folder}/log.txt", 120.0)

    def received(self) -> int:
        return len(self.heard.got)

    def lost(self, since_s: float, before: int) -> int:
        time.sleep(SETTLE_S)
        return round(self.sensors * (time.monotonic() - since_s)) - (self.received() - before)

    def stop(self) -> None:
        self.heard.close()
        self.process.terminate()
        self.process.wait(30)
        self._log.close()
        self.broker.stop()


def sensors() -> str:
    tables = '[buses.i2c1]\nkind = "i2c"\ndevice = "/dev/i2c-1"\n'
    return tables + "".join(SENSOR.format(n=n, address=0x20 + n, every_s=EVERY_S) for n in range(SENSORS))


def at_work(rival: Ours | Theirs, work_s: float) -> dict[str, Any]:
    time.sleep(min(SETTLE_S, work_s))
    before, cpu_before_s, begun_s = rival.received(), cpu_s(rival.pid), time.monotonic()
    time.sleep(work_s)
    took_s = time.monotonic() - begun_s
    return {
        "rival": rival.name,
        "events_per_s": (rival.received() - before) / took_s,
        "cpu_share": (cpu_s(rival.pid) - cpu_before_s) / took_s,
        "rss_mb": memory_mb(rival.pid)["rss_mb"],
    }


def outage(rival: Ours | Theirs, away_s: float) -> dict[str, Any]:
    """The broker knows its subscriber again when it is back."""
    before, since_s, subscribed = rival.received(), time.monotonic(), rival.heard.subscribed
    rival.broker.stop()
    time.sleep(away_s)
    rival.broker.start(*keeping(rival.broker.folder))
    until(lambda: rival.heard.subscribed > subscribed, "the subscriber is back")
    now = rival.received()
    until(lambda: rival.received() > now + SENSORS, f"{rival.name} is back", 60)
    return {"rival": rival.name, "away_s": away_s, "lost": rival.lost(since_s, before)}


def most_ours(folder: Path, count: int) -> dict[str, Any]:
    """Lines are poured in as fast as the terminal takes them."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    ours = Ours(folder, LINES.format(meter=os.ttyname(slave)), simulated=False)
    data = b"\n" + b"".join(b"%d,%.3f\n" % (n, 10 + n % 700 / 100) for n in range(count))
    cpu_before_s, begun_s = cpu_s(ours.pid), time.monotonic()
    threading.Thread(target=_pour, args=(master, data), daemon=True).start()
    until(lambda: len(ours.heard.got) >= count, f"{count} readings", 300)
    until(lambda: ours.received() >= count, f"{count} readings", 60)
    took_s = time.monotonic() - begun_s
    result = {
        "rival": OURS,
        "events_per_s": count / took_s,
        "cpu_share": (cpu_s(ours.pid) - cpu_before_s) / took_s,
        "rss_mb": memory_mb(ours.pid)["rss_mb"],
    }
    ours.stop()
    os.close(master)
    os.close(slave)
    return result


def _pour(master: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(master, view[:4096]) :]


def once(results: dict[str, Any], folder: Path, python: Path | None, figures: dict[str, Any]) -> None:
    def place(name: str) -> Path:
        made = folder / name
        made.mkdir()
        return made

    def both(make: Callable[[], Ours | Theirs]) -> None:
        rival = make()
        results["steady"].append(at_work(rival, figures["work_s"]))
        results["outage"].append(outage(rival, figures["away_s"]))
        rival.stop()

    both(lambda: Ours(place("ours"), sensors(), simulated=True))
    results["most"].append(most_ours(place("ours_most"), figures["lines"]))
    if python is not None:
        both(lambda: Theirs(place("theirs"), python, round(SENSORS / EVERY_S)))


def show(results: dict[str, Any]) -> None:
    for name, head in (("steady", "A hundred readings a second"), ("most", "As fast as it goes")):
        members = ["rival", "events_per_s", "cpu_share", "rss_mb"]
        table(head, members, [[entry[member] for member in members] for entry in results[name]])
    rows = [[entry["rival"], entry["away_s"], entry["lost"]] for entry in results["outage"]]
    table("Readings lost while the broker was away", ["rival", "away s", "lost"], rows)


def main(words: list[str] | None = None) -> int:
    given = parser(__doc__).parse_args(words)
    began = machine()
    results: dict[str, Any] = {"steady": [], "most": [], "outage": []}
    figures = {"work_s": 15.0, "away_s": 20.0, "lines": 50_000}
    if given.smoke:
        figures = {"work_s": 1.0, "away_s": 1.0, "lines": 500}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python = None if given.alone or given.smoke else installed(folder / "mqtt_io_venv")
        for turn in range(given.rounds or 1):
            note(f"round {turn + 1}")
            (folder / str(turn)).mkdir()
            once(results, folder / str(turn), python, figures)
    show(results)
    save(given.json, began, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
