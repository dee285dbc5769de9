"""Waits between retries that are short: their lengths are tested in `test_connectivity.py`."""

import pytest

from device_agent.network.connectivity import Connectivity
from device_agent.testing.clock import SteppedClock


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("device_agent.network.connectivity.FIRST_DELAY_S", 0.001)


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def connectivity(clock: SteppedClock) -> Connectivity:
    made = Connectivity(clock)
    made.answered()
    return made
