"""The daemon and a real broker: rules hold for whoever comes by it, and outages of either lose no event."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.broker_client import BrokerClient
from support.broker_proxy import BrokerProxy
from support.mosquitto import Broker
from support.processes import BoardProcess, Daemon
from support.waiting import until

P = "device-agent/greenhouse_7"
CONFIG = """
[agent]
name = "greenhouse_7"
[network]
kind = "none"
[state]
directory = "{folder}/state"
[safety]
guard_timeout_s = 10
[buses.pins]
kind = "gpio"
chip = "pinctrl-bcm2835"
[devices.valve]
driver = "gpio-output"
bus = "pins"
line = 27
safe = false
min_off_s = 3600
[devices.pump]
driver = "gpio-output"
bus = "pins"
line = 22
safe = false
[devices.secret]
driver = "gpio-input"
bus = "pins"
line = 17
[devices.host]
driver = "host"
every_s = 0.25
[mqtt]
host = "127.0.0.1"
port = {port}
home_assistant = true
[access]
drive = ["local:mqtt"]
[access.devices.pump]
drive = []
[access.devices.secret]
read = []
drive = []
"""
VALVE, PUMP = 27, 22


class Place:
    """A broker, a board, and the daemon as often as it is begun."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.broker = Broker(folder)
        self.config = folder / "agent.toml"
        self.line = BrokerProxy(self.broker.port)
        """Between the daemon and the broker; others reach it all the same."""
        self.config.write_text(CONFIG.format(folder=folder, port=self.line.port))
        self.board = BoardProcess(folder, self.config)
        self.daemons: list[Daemon] = []

    def begin(self) -> Daemon:
        daemon = Daemon(self.folder, self.config, {"DEVICE_AGENT_BOARD": str(self.board.socket)})
        self.daemons.append(daemon)
        return daemon

    def close(self) -> None:
        for daemon in self.daemons:
            daemon.end()
        self.board.stop()
        self.line.close()
        self.broker.stop()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.close()


def numbers(heard: BrokerClient) -> list[int]:
    return [one.json()["seq"] for one in heard.of(f"{P}/events")]


def told(heard: BrokerClient, more: int) -> int:
    """Wait for so many events that are new; the newest number."""
    before = max(numbers(heard), default=0)
    until(lambda: max(numbers(heard), default=0) >= before + more, f"{more} events after {before}")
    return max(numbers(heard))


def whole(heard: BrokerClient) -> None:
    """Each number came, and as often as it came it was the same event."""
    found: dict[int, Any] = {}
    for one in heard.of(f"{P}/events"):
        event = one.json()
        event.pop("late", None)
        assert found.setdefault(event["seq"], event) == event
    assert sorted(found) == list(range(1, max(found) + 1)), "a number is missing"
    assert not [event for event in found.values() if event["kind"] == "gap"]


def kept(daemon: Daemon, more: int) -> None:
    """Wait until so many events more wait for the broker."""
    daemon.wait_logged("ready")
    waiting = daemon.ask("status")["outbox"]["events"]
    until(lambda: daemon.ask("status")["outbox"]["events"] >= waiting + more, "events wait for the broker")


def went_out(daemon: Daemon) -> None:
    until(lambda: daemon.ask("status")["outbox"]["events"] < 2, "all of them went out")


def test_every_rule_holds_for_whoever_comes_by_the_broker(place: Place) -> None:
    place.broker.start()
    heard = BrokerClient(place.broker.port, f"{P}/#", "homeassistant/#")
    daemon = place.begin()
    heard.until(f"{P}/availability", lambda one: one.payload == b"online")
    heard.until(f"{P}/valve/state", lambda one: one.json()["values"] == {"on": False})

    def ack(device: str, id_: str) -> dict[str, Any]:
        return heard.until(f"{P}/{device}/ack", lambda one: one.json()["id"] == id_).json()

    heard.publish(f"{P}/valve/on/set", {"value": True, "id": "a"})
    assert (ack("valve", "a")["state"], ack("valve", "a")["verified"]) == ("done", True)
    heard.until(f"{P}/valve/state", lambda one: one.json()["values"] == {"on": True})
    # The same id once more is a repetition, not a second movement.
    heard.publish(f"{P}/valve/on/set", {"value": True, "id": "a"})
    heard.until(f"{P}/valve/ack", lambda one: one.json().get("repeated"))
    heard.publish(f"{P}/valve/on/set", {"value": False, "id": "off"})
    assert ack("valve", "off")["state"] == "done"
    until(lambda: heard.of(f"{P}/valve/state")[-1].json()["values"] == {"on": False})
    heard.publish(f"{P}/valve/on/set", {"value": True, "id": "b"})
    refused = ack("valve", "b")
    assert (refused["state"], refused["error"]["code"]) == ("rejected", "too_soon")
    heard.publish(f"{P}/pump/on/set", {"value": True, "id": "c"})
    assert ack("pump", "c")["error"]["code"] == "not_allowed"
    heard.publish(f"{P}/secret/active/set", {"value": True, "id": "d"})
    assert ack("secret", "d")["error"]["code"] == "unknown_device"
    assert (place.board.levels(VALVE)[-3:], 1 in place.board.levels(PUMP)) == ([0, 1, 0], False)
    assert {row["who"].partition(" (")[0] for row in daemon.ask("journal") if row["device"] == "valve"} >= {
        "local:mqtt"
    }
    # What the rules hide from the door no topic names, and the acks are events as well.
    assert not [
        one.topic for one in heard.got if "secret" in one.topic and not one.topic.endswith(("set", "ack"))
    ]
    until(lambda: {"a", "b", "c", "d"} <= {one.json().get("id") for one in heard.of(f"{P}/events")})
    heard.publish(f"{P}/stop", {"id": "e"})
    heard.until(f"{P}/ack", lambda one: one.json() == {"id": "e", "state": "done", "verified": False})
    assert daemon.ask("status")["emergency_stop"]["latched"]
    assert daemon.stop() == 0
    heard.until(f"{P}/availability", lambda one: one.payload == b"offline")
    whole(heard)
    heard.close()


def test_outages_of_the_broker_and_of_the_daemon_cost_no_event(place: Place) -> None:
    place.broker.start()
    heard = BrokerClient(place.broker.port, f"{P}/#", session=True)
    daemon = place.begin()
    told(heard, 3)
    # None is on its way to the subscriber: what a dead broker had taken nobody can bring back.
    place.line.cut()
    until(lambda: len(set(numbers(heard))) >= daemon.ask("status")["outbox"]["acknowledged"])
    broker = place.broker.process
    assert broker is not None
    broker.kill()
    broker.wait()
    kept(daemon, 2)
    daemon.kill()
    daemon = place.begin()
    kept(daemon, 2)
    # It has no persistence: whoever is to hear of it comes first.
    before = heard.subscribed
    place.broker.start()
    until(lambda: heard.subscribed > before)
    place.line.heal()
    went_out(daemon)
    told(heard, 2)
    whole(heard)
    begun = {one.json()["seq"] for one in heard.of(f"{P}/events") if one.json()["kind"] == "control"}
    assert len(begun) == 2, "one for each start"
    heard.close()


def test_a_broker_with_persistence_keeps_them_over_its_own_restart(place: Place) -> None:
    options = ("persistence true", f"persistence_location {place.folder}/")
    place.broker.start(*options)
    heard = BrokerClient(place.broker.port, f"{P}/#", session=True)
    daemon = place.begin()
    told(heard, 3)
    heard.close()
    queued = daemon.ask("status")["outbox"]["acknowledged"]
    until(lambda: daemon.ask("status")["outbox"]["acknowledged"] > queued + 3, "the broker keeps some")
    place.broker.stop()
    place.broker.start(*options)
    before, heard = heard.got, BrokerClient(place.broker.port, f"{P}/#", session=True, id_=heard.id)
    heard.got[:0] = before
    went_out(daemon)
    until(lambda: daemon.ask("status")["broker"] == {"up": True, "losses": 1}, "the loss is counted")
    told(heard, 2)
    whole(heard)
    # It knows what is retained, and that the daemon is there again.
    late = BrokerClient(place.broker.port, f"{P}/#")
    late.until(f"{P}/availability", lambda one: one.retained and one.payload == b"online")
    late.until(f"{P}/valve/state", lambda one: one.retained)
    daemon.kill()
    late.until(f"{P}/availability", lambda one: one.payload == b"offline")
    late.close()
    heard.close()
