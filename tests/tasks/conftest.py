"""The tasks of an agent with simulated devices, a real Journal and a real outbox, without a network."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from device_agent.history.history_service import HistoryService
from device_agent.store.outbox.outbox import Outbox
from device_agent.tasks.services import Services
from support.control_side import Ground

CONFIG = """
[devices.fan]
driver = "fan"
safe = false
[devices.button]
driver = "button"
[devices.hidden]
driver = "button"
[streams.telemetry]
direction = "outbound"
affinity = "shared"
devices = ["button"]
[streams.control]
direction = "bidirectional"
devices = ["up", "fan", "hidden"]
link_loss_grace_s = 3
caller_silence_s = 60
[streams.orders]
direction = "inbound"
devices = ["up"]
link_loss_grace_s = 2
[access]
drive = "anyone"
[access.devices.hidden]
read = ["user:bob"]
"""


@pytest.fixture
async def services(tmp_path: Path) -> AsyncIterator[Services]:
    (tmp_path / "run").mkdir()
    async with Ground(tmp_path, CONFIG) as control:
        outbox = Outbox(
            tmp_path,
            tmp_path / "run",
            max_bytes=1_000_000,
            commit_interval_s=60,
            thread=control.store,
            clock=control.clock,
        )
        await outbox.load()
        yield Services(
            devices=control.devices,
            subscriptions=control.subscriptions,
            executor=control.executor,
            safe_states=control.safe_states,
            outbox=outbox,
            journal=control.journal,
            history_service=HistoryService("A", None, control.devices, control.clock),
            clock=control.clock,
        )
        await outbox.close()
