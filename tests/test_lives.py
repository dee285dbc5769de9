"""Lives are started again: later each time, but what has worked for long has a clean sheet."""

import asyncio

import pytest
from structlog.testing import capture_logs

from device_agent import lives


async def test_a_failure_after_a_long_life_is_not_held_against_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven failures in three years must not leave an actuator unwatched for a minute."""
    monkeypatch.setattr(lives, "RESTART_FIRST_S", 0.01)
    monkeypatch.setattr(lives, "RESTART_MAX_S", 0.04)
    ages = iter([0.0, 0.0, 0.0, 0.1, 0.0])
    ended = asyncio.Event()

    async def life() -> None:
        age_s = next(ages, None)
        if age_s is None:
            ended.set()
            return
        await asyncio.sleep(age_s)
        raise ValueError("a bug")

    owner = lives.Lives("test")
    with capture_logs() as logs:
        owner.keep("watch", life)
        async with asyncio.timeout(10):
            await ended.wait()
    await owner.close()
    assert [entry["again_in_s"] for entry in logs] == [0.01, 0.02, 0.04, 0.01, 0.02]
