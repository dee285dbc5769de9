"""When the daemon asks the guard to let go of a line."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from device_agent.devices.context import Context
from device_agent.errors import BusError, BusGone, BusHeld
from device_agent.safety import guard_client as module
from device_agent.safety.guard_client import GuardClient, GuardSettings
from device_agent.safety.leases import Leases
from device_agent.safety.permit import MotionPermit
from device_agent.safety.safe_states import SafeStates
from device_agent.testing.board import SteppedClock


async def nobody(who: str) -> None: ...


HELD, GONE = BusHeld("line 27 is held by 'device-agent'"), BusGone("the GPIO chip is gone")


class Openings:
    """A driver whose openings end one after the other as they are told to."""

    def __init__(self, *ends: BusError | None, sees_holders: bool = True) -> None:
        self.bus = SimpleNamespace(inner=SimpleNamespace(sees_holders=sees_holders))
        self.did: list[str] = []
        self._ends = list(ends)

    def open(self) -> None:
        self.did.append("open")
        if (end := self._ends.pop(0)) is not None:
            raise end

    def close(self) -> None:
        self.did.append("close")


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    clock = SteppedClock()
    context = Context({}, SimpleNamespace(), clock)  # type: ignore[arg-type]
    permit = MotionPermit(clock, lambda: None, 1.0)
    settings = GuardSettings(tmp_path, 1.0, "text")
    client = GuardClient(context, permit, SafeStates(context, permit), Leases(60), settings, nobody)
    client._link = SimpleNamespace(path=tmp_path / "guard.sock")  # type: ignore[assignment]
    client._held.add("valve")
    monkeypatch.setattr(module, "ask_guard", lambda path, op, device: client.driver.did.append(op))
    monkeypatch.setattr(module, "open_and_record", lambda device, driver: driver.open() or [])

    def run(driver: Openings) -> list[str]:
        client.driver = driver  # type: ignore[attr-defined]
        try:
            client.open("valve", driver)  # type: ignore[arg-type]
        except BusError as error:
            driver.did.append(type(error).__name__)
        return driver.did

    return run


def test_a_line_is_let_go_only_when_nothing_else_is_in_the_way(client: Any) -> None:
    assert client(Openings(GONE)) == ["open", "BusGone"]
    assert client(Openings(HELD, None)) == ["open", "close", "release", "open"]


def test_what_could_not_be_taken_is_taken_back(client: Any) -> None:
    did = client(Openings(HELD, GONE))
    assert did == ["open", "close", "release", "open", "close", "take back", "BusGone"]


def test_a_library_that_does_not_see_the_guard_is_given_the_line_first(client: Any) -> None:
    assert client(Openings(None, sees_holders=False)) == ["release", "open"]
    did = client(Openings(GONE, sees_holders=False))
    assert did == ["open", "BusGone"], "it is the daemon's since it was taken"
