"""Nothing is driven by a daemon that stood still, or that has said goodbye to its guard."""

from pathlib import Path

import pytest

from device_agent.devices.context import Context
from device_agent.errors import Rejected
from device_agent.safety.guard_client import GuardClient, GuardSettings
from device_agent.safety.leases import Leases
from device_agent.safety.permit import Motion, MotionPermit
from device_agent.safety.safe_states import SafeStates
from device_agent.store.journal.journal import Journal
from device_agent.store.store_thread import StoreThread
from device_agent.testing.board import SteppedClock


async def nobody(who: str) -> None: ...


async def test_a_gap_and_a_goodbye_refuse_every_command(tmp_path: Path) -> None:
    clock, thread = SteppedClock(), StoreThread()
    journal = Journal(tmp_path / "journal.db", thread)
    await journal.open()
    context = Context({}, journal, clock)
    permit = MotionPermit(clock, lambda: None, 1.0)
    safe_states = SafeStates(context, permit)
    valve = Motion("valve")
    guard = GuardClient(
        context, permit, safe_states, Leases(60), GuardSettings(tmp_path, 1.0, "text"), nobody
    )
    await guard.start()
    permit.confirm(valve)
    clock.step(0.9)
    permit.confirm(valve)
    clock.step(0.2)
    with pytest.raises(Rejected, match="stood still") as stood:
        permit.confirm(valve)
    assert stood.value.code == "too_soon"
    await guard.bye({})
    with pytest.raises(Rejected, match="stopping") as stopping:
        permit.confirm(valve)
    assert stopping.value.code == "device_offline"
    await journal.close()
    await thread.close()
