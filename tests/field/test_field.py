"""Each case of `cases` through the real driver and a pseudo-terminal; README.md has their form."""

import select
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from device_agent import registry
from device_agent.driver import Flagged, Listener, Sensor
from device_agent.records import rounded
from support.serial_peer import SerialPeer
from support.waiting import LIMIT_S

CASES = sorted(Path(__file__).with_name("cases").glob("*.toml"))


def on_wire(text: str) -> bytes:
    """One character a byte."""
    return text.encode("latin-1")


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """As a case writes it."""
    told: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Flagged):
            told[name] = {"flag": str(value.flag)}
        else:
            told[name] = rounded(value) if isinstance(value, float) else value
    return told


def heard(driver: Listener[Any, Any], peer: SerialPeer, data: bytes, count: int) -> list[dict[str, Any]]:
    """The readings that come of these bytes, sent in small pieces; waits for so many."""
    source = driver.listen()
    poll = select.poll()
    poll.register(source.fileno(), select.POLLIN)
    readings: list[dict[str, Any]] = []
    taken, deadline_s = 0, time.monotonic() + LIMIT_S
    for at in range(0, len(data), 7):
        peer.say(data[at : at + 7])
        while taken < min(at + 7, len(data)):
            assert poll.poll(1000) or time.monotonic() < deadline_s, f"{taken} of {len(data)} bytes came"
            for chunk in source.drain():
                taken += len(chunk)
                readings += [plain(values) for values in driver.feed(chunk)]
    source.close()
    assert len(readings) >= count, f"only {readings}; {driver.notes()}"
    return readings


@pytest.mark.parametrize("path", CASES, ids=[path.stem for path in CASES])
def test_what_it_sends_gives_what_it_means(path: Path) -> None:
    case = tomllib.loads(path.read_text(encoding="utf-8"))
    driver_class = registry.load(case["device"]["driver"])
    config = driver_class.Config.model_validate({"bus": "line", **case["device"]})
    answers = {on_wire(asked): on_wire(said) for asked, said in case.get("answers", {}).items()}
    peer = SerialPeer(answers)
    port = peer.port(**case.get("bus", {}))
    port.open()
    try:
        driver = driver_class(config, port)
        driver.open()
        if isinstance(driver, Sensor):
            readings = [plain(driver.read()) for _ in case["readings"]]
        else:
            readings = heard(driver, peer, on_wire(case["wire"]), len(case["readings"]))
        assert readings == case["readings"]
        assert dict(driver.notes()) == case.get("notes", {})
        driver.close()
    finally:
        port.close()
        peer.close()


def test_there_are_cases_and_each_says_what_it_is() -> None:
    assert len(CASES) >= 30
    for path in CASES:
        assert tomllib.loads(path.read_text(encoding="utf-8"))["what"], path.name
