"""The reading path: serial lines and GPIO edges into the outbox, and the CPU of ten sensors.

    python tests/benchmarks/bench_readings.py [--json FILE] [--rounds N] [--smoke] [--alone]

`lines`: a real daemon reads a pseudo-terminal, set to 921600 baud, that is filled as fast as it takes bytes,
while the network is away: until the last line is an event in the outbox.
`edges`: a line of the simulated board is switched at a steady pace; edges that the daemon did not count.
(From an idle edge to its event at a caller: `bench_pipe`.)
`ten`: ten sensors asked once a second, each reading published, against mqtt-io (its own mock sensors, which
cost nothing to read; ours read registers over the socket of the simulated board), in a venv made for it.
"""

import json
import os
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench_measure import cpu_s, machine, median, memory_mb, note, parser, save, table, threads
from bench_rig import LIMIT_S, STREAM, Numbers, Ours, Rig, until

from device_agent.testing.board.link import BoardFrames, framed

MQTT_IO = "mqtt-io==2.7.0"
INSTALL_LIMIT_S = 300
SENSORS = 10
BATCH_S = 0.01
LINE_LIMIT_S = 120.0

OUTBOX_TOML = """
[outbox]
max_bytes = "1 GB"
[history]
enabled = false
"""
LINES_TOML = (
    OUTBOX_TOML
    + """
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
[streams.readings]
direction = "outbound"
devices = ["meter"]
"""
)
EDGES_TOML = (
    OUTBOX_TOML
    + """
[buses.pins]
kind = "gpio"
chip = "pinctrl-bcm2835"
[devices.meter]
driver = "gpio-input"
bus = "pins"
line = 17
count = true
[streams.readings]
direction = "outbound"
devices = ["meter"]
"""
)
TEN_TOML = """
[buses.i2c1]
kind = "i2c"
device = "/dev/i2c-1"
[streams.readings]
direction = "outbound"
devices = [{names}]
"""
TEN_DEVICE = """
[devices.s{n}]
driver = "i2c-registers"
bus = "i2c1"
address = {address}
every_s = 1
points = {{ value = {{ register = 0, width_bits = 16 }} }}
"""


# -- lines --------------------------------------------------------------------------------------------------


class Pour:
    """Lines into a pseudo-terminal as fast as it takes them, in a thread; none is left out."""

    def __init__(self, master: int, count: int) -> None:
        self._master = master
        self._lines = [b"%d,%.3f\n" % (n, 10 + n % 700 / 100) for n in range(count)]
        self._thread = threading.Thread(target=self._pour, daemon=True)
        self._thread.start()

    def _pour(self) -> None:
        data = memoryview(b"\n" + b"".join(self._lines))
        while data:
            select.select([], [self._master], [])
            data = data[os.write(self._master, data[:4096]) :]


def lines(rig: Rig, turn: int, count: int) -> dict[str, Any]:
    """Lines a second into the outbox, with the network away."""
    agent = f"ours_lines_{turn}"
    ours = rig.ours(LINES_TOML, agent=agent)
    numbers = Numbers()
    rig.open(ours, ours.request("lines"), numbers)
    ours.source.send([-2, -1])  # of the first line after opening the start may be missing
    until(lambda: numbers.received, "the first line at the caller")
    rig.net.call("refuse", link=ours.link)
    pending = _figures(ours)["events"]
    cpu_before_s, begun_s = cpu_s(ours.pid), time.monotonic()
    Pour(ours.source.master, count)
    until(lambda: _latest(ours, "n") == count - 1, "the last line", LINE_LIMIT_S)
    took_s = time.monotonic() - begun_s
    cpu_share = (cpu_s(ours.pid) - cpu_before_s) / took_s
    figures = _figures(ours)
    ours.stop()
    note(f"lines: {count / took_s:,.0f} a second")
    return {
        "lines": count,
        "lines_per_s": count / took_s,
        "cpu_share": cpu_share,
        "lost": count - (figures["events"] - pending) - figures["dropped"],
        "dropped": figures["dropped"],
    }


def _figures(ours: Ours) -> dict[str, Any]:
    figures: dict[str, Any] = ours.daemon.ask("status")["outbox"]
    return figures


def _latest(ours: Ours, point: str) -> Any:
    time.sleep(0.05)
    return ours.daemon.ask("read", device="meter")["values"].get(point)


# -- edges --------------------------------------------------------------------------------------------------


class Switch:
    """Switches a line of the board, many times a call."""

    def __init__(self, board: Path, line: int) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(str(board))
        self._frames = BoardFrames(self._socket)
        self._line = line
        self._ask([("hello", "stimulus"), ("pin", "pins", line, False)])

    def _ask(self, questions: Sequence[tuple[Any, ...]]) -> None:
        self._socket.sendall(b"".join(framed(one) for one in questions))
        for _ in questions:
            ok, *answer = self._frames.receive()
            assert ok, answer

    def edges(self, count: int) -> None:
        """So many edges, rising first."""
        self._ask([("pin", "pins", self._line, n % 2 == 0) for n in range(count)])

    def close(self) -> None:
        self._socket.close()


def edges(rig: Rig, turn: int, rates_hz: Sequence[int], work_s: float) -> list[dict[str, Any]]:
    """At each pace: edges that were counted, said lost, and neither; events in the outbox; the delay."""
    ours = rig.ours(EDGES_TOML, agent=f"ours_edges_{turn}", simulated=True)
    assert ours.board is not None
    seen: list[tuple[dict[str, Any], float]] = []
    session = rig.open(ours, ours.request("edges"), lambda event, at_s: seen.append((event, at_s)))
    until(lambda: seen, "the first event")
    switch = Switch(ours.board.socket, 17)
    results = []
    for rate_hz in rates_hz:
        before = _count(ours)
        cpu_before_s, begun_s = cpu_s(ours.pid), time.monotonic()
        sent = _paced(switch, rate_hz, work_s)
        took_s = time.monotonic() - begun_s
        # Rising edges alone are counted; each lost one is told with the next that came.
        until(lambda before=before, sent=sent: _count(ours) >= before + sent // 2, "all edges counted", 5.0)
        results.append(
            {
                "asked_hz": rate_hz,
                "edges_per_s": sent / took_s,
                "uncounted": sent // 2 - (_count(ours) - before),
                "cpu_share": (cpu_s(ours.pid) - cpu_before_s) / took_s,
            }
        )
        note(f"edges: {sent / took_s:,.0f} a second, {results[-1]['uncounted']} of them not counted")
    switch.close()
    session.close()
    ours.stop()
    return results


def _paced(switch: Switch, rate_hz: int, work_s: float) -> int:
    """An even number of edges in equal batches; fewer than asked for where the board cannot do more."""
    batch = max(2, int(rate_hz * BATCH_S) // 2 * 2)
    sent, begun_s = 0, time.monotonic()
    while (now_s := time.monotonic()) < begun_s + work_s:
        due_s = begun_s + sent / rate_hz
        if now_s < due_s:
            time.sleep(due_s - now_s)
        switch.edges(batch)
        sent += batch
    return sent


def _count(ours: Ours) -> int:
    return int(_latest(ours, "count") or 0)


# -- ten sensors --------------------------------------------------------------------------------------------


class MqttIo:
    """mqtt-io with ten mock sensors, and the broker that it publishes to."""

    def __init__(self, python: Path, folder: Path) -> None:
        folder.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        config = folder / "mosquitto.conf"
        config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
        self._log = (folder / "log.txt").open("wb")
        words = ["mosquitto", "-c", str(config)]
        self.broker = subprocess.Popen(words, stdout=self._log, stderr=self._log)
        sensors = [{"name": f"s{n}", "module": "mock", "interval": 1} for n in range(SENSORS)]
        settings = {
            "mqtt": {"host": "127.0.0.1", "port": port, "topic_prefix": "bench"},
            "sensor_modules": [{"name": "mock", "module": "mock"}],
            "sensor_inputs": sensors,
        }
        (folder / "config.yml").write_text(json.dumps(settings))  # which is YAML too
        until(lambda: _answers(port), "the broker")
        self.received = 0
        self._listen(port)
        self.process = subprocess.Popen(
            [python, "-m", "mqtt_io", str(folder / "config.yml")], stdout=self._log, stderr=self._log
        )
        until(lambda: self.received >= SENSORS, f"ten readings of mqtt-io; see {folder}/log.txt")

    def _listen(self, port: int) -> None:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = lambda *_: setattr(self, "received", self.received + 1)
        self._client.connect("127.0.0.1", port)
        self._client.subscribe("bench/sensor/#", qos=1)
        self._client.loop_start()

    def stop(self) -> None:
        self._client.loop_stop()
        self._client.disconnect()
        for process in (self.process, self.broker):
            process.terminate()
            process.wait(LIMIT_S)
        self._log.close()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def installed(folder: Path) -> Path | None:
    """The rival's Python, in a venv of its own; None, and a sentence, where it cannot be had."""
    if shutil.which("mosquitto") is None:
        note("mqtt-io is left out: mosquitto is not installed (apt-get install mosquitto)")
        return None
    python = folder / "bin" / "python"
    try:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=INSTALL_LIMIT_S)
        words = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", MQTT_IO]
        subprocess.run(words, check=True, capture_output=True, timeout=INSTALL_LIMIT_S)
    except (subprocess.SubprocessError, OSError) as error:
        note(f"mqtt-io is left out: {MQTT_IO} cannot be installed ({error})")
        return None
    return python


def ten_ours(rig: Rig, turn: int, work_s: float) -> dict[str, Any]:
    names = ", ".join(f'"s{n}"' for n in range(SENSORS))
    config = TEN_TOML.format(names=names)
    config += "".join(TEN_DEVICE.format(n=n, address=0x20 + n) for n in range(SENSORS))
    # It is filled in once more by the rig
    config = config.replace("{", "{{").replace("}", "}}")
    ours = rig.ours(config, agent=f"ours_ten_{turn}", simulated=True)
    numbers = Numbers()
    session = rig.open(ours, {"streams": [STREAM]}, numbers)
    until(lambda: len(numbers.received) > 2 * SENSORS, "readings of ten sensors")
    result = _at_work("device-agent", ours.pid, lambda: len(numbers.received), work_s)
    session.close()
    ours.stop()
    return result


def ten_theirs(python: Path, folder: Path, work_s: float) -> dict[str, Any]:
    rival = MqttIo(python, folder)
    result = _at_work("mqtt-io", rival.process.pid, lambda: rival.received, work_s)
    rival.stop()
    return result


def _at_work(name: str, pid: int, received: Any, work_s: float) -> dict[str, Any]:
    time.sleep(min(3.0, work_s))
    before, cpu_before_s, begun_s = received(), cpu_s(pid), time.monotonic()
    time.sleep(work_s)
    took_s = time.monotonic() - begun_s
    return {
        "rival": name,
        "readings_per_s": (received() - before) / took_s,
        "cpu_share": (cpu_s(pid) - cpu_before_s) / took_s,
        "rss_mb": memory_mb(pid)["rss_mb"],
        "threads": threads(pid),
    }


# -- all ----------------------------------------------------------------------------------------------------


def show(results: dict[str, Any]) -> None:
    done = results["lines"]
    middle = {name: median(entry[name] for entry in done) for name in ("lines_per_s", "cpu_share")}
    row = [done[0]["lines"], *middle.values(), *(sum(e[name] for e in done) for name in ("dropped", "lost"))]
    head = ["lines", "lines/s", "CPU share", "dropped for want of space", "lost"]
    table("Serial lines into the outbox, network away", head, [row])
    members = ["asked_hz", "edges_per_s", "uncounted", "cpu_share"]
    rows = []
    for asked in dict.fromkeys(entry["asked_hz"] for entry in results["edges"]):
        same = [entry for entry in results["edges"] if entry["asked_hz"] == asked]
        rows.append([asked, *(median(entry[name] for entry in same) for name in members[1:])])
    table("GPIO edges of the simulated board", ["asked/s", "edges/s", "not counted", "CPU share"], rows)
    members = ["readings_per_s", "cpu_share", "rss_mb", "threads"]
    rows = []
    for name in dict.fromkeys(entry["rival"] for entry in results["ten"]):
        same = [entry for entry in results["ten"] if entry["rival"] == name]
        rows.append([name, *(median(entry[member] for entry in same) for member in members)])
    head = ["runtime", "readings/s at the receiver", "CPU share", "RSS MB", "threads"]
    table("Ten sensors once a second", head, rows)
    if len(rows) == 2:
        print(f"CPU of device-agent / mqtt-io: {rows[0][2] / max(rows[1][2], 1e-6):.2f}")


def main(words: list[str] | None = None) -> int:
    given = parser(__doc__).parse_args(words)
    rounds = given.rounds or (1 if given.smoke else 3)
    count = 2_000 if given.smoke else 300_000
    rates_hz = (200,) if given.smoke else (1_000, 5_000, 10_000, 20_000)
    work_s = 1.0 if given.smoke else 5.0
    began = machine()
    results: dict[str, Any] = {"lines": [], "edges": [], "ten": []}
    with Rig() as rig:
        python = None if given.alone or given.smoke else installed(rig.folder / "mqtt_io_venv")
        for turn in range(rounds):
            results["lines"].append(lines(rig, turn, count))
            results["edges"] += edges(rig, turn, rates_hz, work_s)
            results["ten"].append(ten_ours(rig, turn, work_s * 4))
            if python is not None:
                results["ten"].append(ten_theirs(python, rig.folder / f"mqtt_io_{turn}", work_s * 4))
    show(results)
    save(given.json, began, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
