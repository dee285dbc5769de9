"""The library of `cases` through real daemons: what comes of it is asked at the control socket.

README.md has the form of a case.
"""

import json
import re
import shutil
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt import publish

from device_agent import registry
from device_agent.driver import Listener
from device_agent.records import rounded
from support.deployment import is_at_work
from support.far_ends import FarEnd, FarEnds, ModbusUnit
from support.mosquitto import Broker
from support.processes import Daemon
from support.waiting import until

CASES = {
    path.stem: tomllib.loads(path.read_text(encoding="utf-8"))
    for path in sorted(Path(__file__).with_name("cases").glob("*.toml"))
}
HEAD = """
[agent]
name = "field"
[network]
kind = "none"
[state]
directory = "{folder}/state"
[safety]
guard_timeout_s = 10
"""
NOT_READY = {"flag": "not_ready"}
NEVER_S = 3600.0
BUSES_MAX = 60  # of a configuration


def on_wire(text: str) -> bytes:
    """One character a byte."""
    return text.encode("latin-1")


def as_toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(name)} = {as_toml(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    return json.dumps(value)


def far_end(case: Mapping[str, Any]) -> FarEnd:
    said = {
        on_wire(asked): [on_wire(one) for one in ([answer] if isinstance(answer, str) else answer)]
        for asked, answer in case.get("answers", {}).items()
    }
    said |= {bytes.fromhex(asked): [bytes.fromhex(answer)] for asked, answer in case.get("hex", {}).items()}
    unit = ModbusUnit(case["unit"]) if "unit" in case else None
    boot = on_wire(case.get("boot", ""))
    return FarEnd(said, boot=boot, unit=unit)


@dataclass
class Played:
    """What the daemon said of one case."""

    status: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    read: dict[str, Any] = field(default_factory=dict)
    acks: list[dict[str, Any]] = field(default_factory=list)
    heard: bytes = b""
    logged: str = ""


def told(values: Mapping[str, Any], flags: Mapping[str, str]) -> dict[str, Any]:
    """A reading as a case writes it."""
    return {
        name: value
        if name not in flags
        else {"flag": flags[name], **({} if value is None else {"value": value})}
        for name, value in values.items()
    }


def wanted(case: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The readings as callers get them: points that a message does not hold are repeated."""
    names = [point.name for point in _driver(case).points_of(_config(case))]
    known: dict[str, Any] = dict.fromkeys(names, NOT_READY)
    rows = []
    for reading in case.get("readings", []):
        known |= {n: rounded(v) if isinstance(v, float) else v for n, v in reading.items()}
        rows.append(dict(known))
    return rows


def _driver(case: Mapping[str, Any]) -> Any:
    return registry.load(case["device"]["driver"])


def _config(case: Mapping[str, Any]) -> Any:
    return _driver(case).Config.model_validate({"bus": "line", **case["device"]})


class Field:
    """One daemon with a device for each of these cases, each at a far end of its own."""

    def __init__(self, folder: Path, broker: Broker, names: Sequence[str]) -> None:
        folder.mkdir()
        self.broker = broker
        self.cases = {name: CASES[name] for name in names}
        self.ends = {name: far_end(case) for name, case in self.cases.items() if self._is_serial(case)}
        buses: dict[str, Any] = {"broker": {"kind": "mqtt", "host": "127.0.0.1", "port": broker.port}}
        devices: dict[str, Any] = {}
        for name, case in self.cases.items():
            if name in self.ends:
                buses[name] = {"kind": "serial", "port": self.ends[name].path, **case.get("bus", {})}
            elif "files" in case:
                buses[name] = {"kind": "w1", "directory": str(self._sensors(folder / name, case["files"]))}
            devices[name] = {
                "bus": name if name in buses else "broker",
                **self._usual(case),
                **case["device"],
            }
        config = folder / "agent.toml"
        tables = [f"[buses]\n{_lines(buses)}", f"[devices]\n{_lines(devices)}"]
        config.write_text(HEAD.format(folder=folder) + "\n".join(tables))
        self.daemon = Daemon(folder, config, {}, [])

    @staticmethod
    def _usual(case: Mapping[str, Any]) -> dict[str, float]:
        """What lets a busy machine change no reading."""
        if issubclass(_driver(case), Listener):
            return {"stale_after_s": NEVER_S}
        limit = {"timeout_s": 2.0} if case["device"]["driver"] == "modbus-rtu" else {}
        return {"every_s": NEVER_S, **limit}

    @staticmethod
    def _is_serial(case: Mapping[str, Any]) -> bool:
        return not case.keys() & {"files", "messages"}

    @staticmethod
    def _sensors(folder: Path, sensors: Mapping[str, Mapping[str, str]]) -> Path:
        for sensor, files in sensors.items():
            (folder / sensor).mkdir(parents=True)
            for name, text in files.items():
                (folder / sensor / name).write_text(text)
        return folder

    def status(self) -> dict[str, dict[str, Any]]:
        return {entry["device"]: entry for entry in self.daemon.ask("status")["devices"]}

    def hears_the_broker(self) -> bool:
        """What is published earlier is lost; what comes at a port waits there."""
        return all(is_at_work(e) for name, e in self.status().items() if "messages" in CASES[name])

    def begin(self) -> None:
        self.daemon.wait_logged("ready")
        until(self.hears_the_broker, "subscriptions")
        for name, end in self.ends.items():
            end.say(on_wire(CASES[name].get("wire", "")))
        messages = [
            {"topic": topic, "payload": payload.encode("utf-8", "surrogateescape"), "qos": 1}
            for case in self.cases.values()
            for topic, payload in case.get("messages", [])
        ]
        if messages:
            publish.multiple(messages, hostname="127.0.0.1", port=self.broker.port)

    def played(self) -> dict[str, Played]:
        with suppress(AssertionError):  # what does not come true is told by its own test
            until(lambda: not self.unsettled(), "every case settled")
        events = self.daemon.events()
        played = {name: Played(status=entry) for name, entry in self.status().items()}
        for row in json.loads(self.daemon.ask("history")["data"])["readings"]:
            played[row["device"]].rows.append(told(row["values"], row.get("flags", {})))
        for name, one in played.items():
            case = CASES[name]
            if one.status["state"] == "online":
                answer = self.daemon.ask("read", device=name)
                one.read = told(answer["values"], answer.get("flags", {}))
            one.acks = [self._carried_out(name, command) for command in case.get("commands", [])]
            if name in self.ends:
                one.heard = self.ends[name].heard
            one.logged = "".join(str(entry) for entry in events if entry.get("device") == name)
        return played

    def unsettled(self) -> list[str]:
        # First, so that the status is of all that was said. Asked devices leave what nobody asked for.
        taken = {name: "wire" not in CASES[name] or end.all_taken for name, end in self.ends.items()}
        return [
            name
            for name, entry in self.status().items()
            if not (taken.get(name, True) and _is_settled(CASES[name], entry))
        ]

    def _carried_out(self, name: str, command: Mapping[str, Any]) -> dict[str, Any]:
        """The ack. A far end that a busy machine held up for longer than its limit is asked again."""
        ack: dict[str, Any] = {}
        for _ in range(3):
            ack = self.daemon.ask("set", device=name, values=command["set"])
            if ack.get("state") == command["state"]:
                break
        return ack


def _lines(tables: Mapping[str, Any]) -> str:
    return "".join(f"{name} = {as_toml(table)}\n" for name, table in tables.items())


def _is_settled(case: Mapping[str, Any], entry: Mapping[str, Any]) -> bool:
    rows = wanted(case)
    latest = entry.get("latest")
    return (
        case.get("state", "online") in (entry["state"], "any")
        and ("any_notes" in case or entry.get("notes", {}) == case.get("notes", {}))
        and (
            not rows
            or "at_times_null" in case
            or (latest is not None and told(latest["values"], latest.get("flags", {})) == rows[-1])
        )
    )


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Played]]:
    if not (shutil.which("mosquitto") or Path("/usr/sbin/mosquitto").exists()):
        pytest.skip("apt-get install mosquitto")
    folder = tmp_path_factory.mktemp("field")
    broker = Broker(folder)
    broker.start()
    names, fields = list(CASES), list[Field]()
    for at in range(0, len(names), BUSES_MAX):
        fields.append(Field(folder / str(at), broker, names[at : at + BUSES_MAX]))
    with FarEnds([end for one in fields for end in one.ends.values()]):
        try:
            for one in fields:
                one.begin()
            yield {name: told for one in fields for name, told in one.played().items()}
        finally:
            for one in fields:
                one.daemon.end()
            broker.stop()


@pytest.mark.parametrize("name", CASES)
def test_what_it_sends_gives_what_it_means(name: str, played: dict[str, Played]) -> None:
    case, one = CASES[name], played[name]
    rows, state = wanted(case), case.get("state", "online")
    assert state in (one.status["state"], "any"), one.status
    # One that says twice that it has started is opened twice.
    assert (one.rows if "boot" not in case else [row for row, _ in groupby(one.rows)]) == rows
    assert one.read == (rows[-1] if state == "online" else {})
    assert "any_notes" in case or one.status.get("notes", {}) == case.get("notes", {})
    assert re.search(case.get("detail", ""), one.status.get("detail", "")), one.status
    for ack, command in zip(one.acks, case.get("commands", []), strict=True):
        assert {name: ack.get(name) for name in command.keys() - {"set"}}.items() <= command.items(), ack
    assert re.search(case.get("logged", ""), one.logged)
    for text in case.get("heard", []):
        assert on_wire(text) in one.heard
    for text in case.get("unheard", []):
        assert on_wire(text) not in one.heard


def test_there_are_cases_and_each_says_what_it_is() -> None:
    assert all(case["what"] for case in CASES.values())
    reported = {case["reported"] for case in CASES.values() if "reported" in case}
    assert len(reported) >= 30
    assert all(place.startswith("https://github.com/") for place in reported)
