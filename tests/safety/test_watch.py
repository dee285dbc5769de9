"""What watches the link for the actuators waits for nobody."""

import asyncio
import threading
from pathlib import Path

import pytest

from device_agent.agent import WATCH_S, Agent
from device_agent.bus.core import NoBus
from device_agent.clock import SystemClock
from device_agent.config import load
from device_agent.config.secret import ApiKeys

LIMIT_S = 10.0
CONFIG = """
[agent]
name = "a"
[network]
cdm_url = "http://127.0.0.1:9"
[state]
directory = "{folder}/state"
[devices.board]
driver = "host"
"""


class Systemd:
    """The notify socket of a service with a watchdog."""

    watchdog_s = 6.0

    def __init__(self) -> None:
        self.told: list[str] = []

    def tell(self, text: str) -> None:
        self.told.append(text)

    def status(self, text: str) -> None:
        self.told.append(f"STATUS={text}")


async def test_a_slow_card_delays_no_safe_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(CONFIG.format(folder=tmp_path))
    (tmp_path / "state" / "run").mkdir(parents=True, mode=0o700)
    systemd, gate, seen = Systemd(), threading.Event(), []
    keys, nothing = ApiKeys(lambda: "bk_x", lambda: ""), NoBus(simulated=True)
    agent = Agent(load(path), keys, SystemClock(), lambda *_: nothing, systemd)  # type: ignore[arg-type]
    monkeypatch.setattr(agent._tasks, "overdue", lambda: {"valve": "no link"})
    monkeypatch.setattr(agent._control.safe_states, "spawn_safe", lambda name, why: seen.append(name))
    running = asyncio.ensure_future(agent.run())
    try:
        async with asyncio.timeout(LIMIT_S):
            while "WATCHDOG=1" not in systemd.told:  # noqa: ASYNC110 - told to a list
                await asyncio.sleep(0.01)
        agent._store.later(lambda: gate.wait(LIMIT_S))
        # The sign of life is due every two seconds and waits for the card: looks go on meanwhile.
        before, told = len(seen), systemd.told.count("WATCHDOG=1")
        async with asyncio.timeout(LIMIT_S):
            while len(seen) < before + round(3 / WATCH_S):  # noqa: ASYNC110 - told to a list
                await asyncio.sleep(0.01)
        assert systemd.told.count("WATCHDOG=1") <= told + 1
    finally:
        gate.set()
        agent.stop()
        await running
