"""Far ends on pseudo-terminals: one that nobody understands, and one that tells when it measured."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from device_agent.testing.network import NetworkThread
from support.browser import PROGRAM, browser
from support.callers import pipe, question, result, stream
from support.deployment import HEAD, World, is_at_work
from support.mosquitto import free_port
from support.serial_peer import SerialPeer
from support.waiting import LIMIT_S, until

CONFIG = (
    HEAD
    + """[page]
listen = "127.0.0.1:{port}"
[buses.line]
kind = "serial"
port = "{meter}"
[buses.cable]
kind = "serial"
port = "{probe}"
[buses.relay]
kind = "serial"
port = "{pump}"
[devices.meter]
driver = "serial-lines"
bus = "line"
pattern = '1-0:1.8.0\\((?P<energy>[0-9.]+)'
points.energy = {{ unit = "kW.h" }}
[devices.probe]
driver = "serial-lines"
bus = "cable"
format = "json"
stale_after_s = 600
points.level = {{ unit = "cm" }}
points.dry = {{ type = "boolean" }}
points.measured = {{ path = "ts", time = {{ format = "unix", max_age_s = 7200 }} }}
[devices.pump]
driver = "serial-lines"
bus = "relay"
pattern = 'P (?P<on>[01])'
command = "P {{on}}\\n"
points.on = {{ type = "boolean", write = true, safe = false }}
only_while = {{ probe = {{ dry = true }} }}
[streams.live]
direction = "outbound"
devices = ["probe", "meter"]
"""
)
SEVEN_BITS = bytes(byte | (byte.bit_count() % 2) << 7 for byte in b"1-0:1.8.0(000123.45*kWh)\r\n")
WANTED = "bytes/s, nothing understood: looks like 7E1"


class Place:
    """A daemon on three real ports, and who speaks there."""

    def __init__(self, folder: Path, net: NetworkThread) -> None:
        self.meter, self.probe, self.pump = (SerialPeer() for _ in range(3))
        paths = {name: getattr(self, name).path for name in ("meter", "probe", "pump")}
        self.port = free_port()
        self.world = World(folder, net, config=CONFIG, simulated=False, port=self.port, **paths)
        self._ended = threading.Event()
        self._talking = threading.Thread(target=self._talk)
        self._talking.start()
        self.daemon = self.world.start(joined=False)
        self.daemon.wait_logged("joined")
        until(lambda: b"P 0" in self.pump.heard, "the pump is there")
        until(lambda: is_at_work(self.daemon.device("probe")), "the probe is listened to")

    def _talk(self) -> None:
        """The meter speaks with 7 bits and even parity, whatever the near end makes of it."""
        while not self._ended.wait(0.1):
            self.meter.say(SEVEN_BITS)

    def close(self) -> None:
        self._ended.set()
        self._talking.join()
        self.world.close()
        for peer in (self.meter, self.probe, self.pump):
            peer.close()

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "device_agent", "--config", str(self.world.config), *words],
            capture_output=True, text=True, timeout=LIMIT_S * 3, check=False, env={**os.environ, "TZ": "UTC"},
        )  # fmt: skip

    def measure(self, at_s: float, **values: Any) -> dict[str, Any]:
        """The probe says it; the reading that the daemon then has."""
        self.probe.say(json.dumps({"ts": at_s, **values}).encode() + b"\n")
        latest = until(lambda: self._present(round(at_s)), f"the values of {at_s}")
        return dict(latest)

    def _present(self, at_s: int) -> dict[str, Any] | None:
        latest = self.daemon.device("probe").get("latest", {})
        return latest if round(latest.get("values", {}).get("measured", 0)) == at_s else None


@pytest.fixture(scope="module")
def place(net: NetworkThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made = Place(tmp_path_factory.mktemp("far"), net)
    yield made
    made.close()


def test_a_far_end_tells_when_it_measured(place: Place, alice: Any) -> None:
    """Its time counts for events, the record, age and conditions, as far as it can be true."""
    session = pipe(alice, {"streams": ["live"]})
    heard = stream(session, "live")
    heard.wait("control", about="session")
    now_s = round(time.time())

    def obeyed() -> str:
        ack = place.daemon.ask("set", device="pump", values={"on": True})
        return "done" if ack.get("state") == "done" else str(ack.get("error", ack))

    reading = place.measure(now_s - 60, level=1, dry=True)
    assert (reading["at"], reading.get("flags", {})) == ((now_s - 60) * 1000, {}), "a minute ago, as it says"
    assert obeyed() == "done"
    until(lambda: place.pump.heard.endswith(b"P 1\n"), "the pump is told")
    reading = place.measure(now_s - 59, level=1.5)  # says nothing of `dry`
    assert (reading["values"]["dry"], reading.get("flags", {})) == (True, {})
    assert place.pump.heard.endswith(b"P 1\n"), "and what it does not say is not taken for false"
    # An hour ago: too old to say anything of now. It goes to the record and to callers, with its time.
    late = round(time.time()) - 3600
    place.probe.say(json.dumps({"ts": late, "level": 2, "dry": True}).encode() + b"\n")
    assert heard.wait("reading", at=late * 1000)["values"]["level"] == 2
    until(lambda: place.pump.heard.endswith(b"P 0\n"), "the pump is safe: nobody knows whether it is dry now")
    assert "cannot be read now" in obeyed()
    assert place.daemon.device("probe")["latest"]["flags"]["dry"] == "stale"
    assert place.measure(now_s - 58, level=3, dry=True).get("flags", {}) == {}
    assert obeyed() == "done"
    # What cannot be true: then it came now, with a flag, and is no condition's proof.
    for at_s, level in ((946_684_800, 4), (now_s + 90_000, 5), (now_s - 8000, 6)):
        reading = place.measure(at_s, level=level, dry=True)
        assert set(reading["flags"].values()) == {"undated"}, reading
        assert abs(reading["at"] / 1000 - time.time()) < LIMIT_S
        assert heard.wait("reading", at=reading["at"])["flags"]["level"] == "undated"
        assert "cannot be read now" in obeyed()
    span = {"from": (late - 10) * 1000, "to": round(time.time() + 10) * 1000}
    rows = json.loads(place.daemon.ask("history", devices=["probe"], **span)["data"])["readings"]
    known = {row["values"]["level"]: row["at"] for row in rows if row["values"]["level"] is not None}
    assert (known[2], known[1]) == (late * 1000, (now_s - 60) * 1000)
    assert {4, 5, 6} <= known.keys()
    session.cancel()
    session.wait_for_terminal(LIMIT_S)


def test_what_nobody_understands_is_told_everywhere(place: Place, alice: Any) -> None:
    until(lambda: WANTED in place.daemon.device("meter").get("detail", ""), "it is told", 2 * LIMIT_S)
    assert place.daemon.device("meter")["state"] == "fault"
    status = place.cli("status").stdout
    assert WANTED in status
    assert "lines unlike: " in status, "and so are counts"
    assert WANTED in place.cli("read", "meter").stderr
    assert WANTED in place.cli("read").stdout
    doctor = place.cli("doctor", "--offline")
    assert WANTED in doctor.stdout
    session = pipe(alice, {"streams": ["live"]})
    assert stream(session, "live").wait("status", device="meter")["reason"] == "not_understood"
    session.cancel()
    session.wait_for_terminal(LIMIT_S)
    everything = result(question(alice, {"op": "read"}))
    assert {reading["device"] for reading in everything["readings"]} == {"probe", "pump"}
    (missing,) = everything["unavailable"]
    assert missing["device"] == "meter"
    assert WANTED in missing["reason"]


@pytest.mark.skipif(not PROGRAM, reason="chromium is not installed (apt-get install chromium)")
async def test_the_page_tells_it_too(place: Place, tmp_path: Path) -> None:
    async with browser(tmp_path) as tab:
        await tab.open(f"http://127.0.0.1:{place.port}/", (1280, 900))
        note = "document.querySelector('[aria-label=\"meter\"] .note')"
        await tab.until(f"{note}?.innerText.includes({json.dumps(WANTED)})")
        assert "lines unlike: " in await tab.js(f"{note}.innerText")
        assert tab.faults == []
