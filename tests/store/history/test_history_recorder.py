"""The recorder of history: what is written, thinned, bounded; disks that are full, damaged or cut off."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from device_agent.clock import EARLIEST_TRUE_MS
from device_agent.records import Flag, Reading
from device_agent.store.history.history_block import HistoryRow, clip, rows_of
from device_agent.store.history.history_file import HistoryReader
from device_agent.store.history.history_recorder import HistoryRecorder
from device_agent.store.store_thread import StoreThread
from device_agent.testing import SteppedClock

DAY_S = 86_400
START_MS = EARLIEST_TRUE_MS


@pytest.fixture
async def thread() -> AsyncIterator[StoreThread]:
    made = StoreThread()
    yield made
    await made.close()


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
async def make(
    tmp_path: Path, thread: StoreThread, clock: SteppedClock
) -> AsyncIterator[Callable[..., HistoryRecorder]]:
    made: list[HistoryRecorder] = []

    def history(
        keep_days: float = 7, max_bytes: int = 64_000_000, folder: Path = tmp_path
    ) -> HistoryRecorder:
        path = folder / "history.db"
        made.append(
            HistoryRecorder(path, keep_days=keep_days, max_bytes=max_bytes, thread=thread, clock=clock)
        )
        return made[-1]

    yield history
    for one in made:
        await one.close()


def reading(clock: SteppedClock, value: float | None = None, device: str = "climate") -> Reading:
    at_s = clock.monotonic_s()
    values = {"temperature": round(21 + 5 * math.sin(at_s / 9000), 2) if value is None else value}
    return Reading(device, clock.now_ms(), values, {}, at_s, clock.is_set())


def stored(path: Path, device: str = "climate", from_ms: int = 0, to_ms: int = 2**45) -> list[HistoryRow]:
    with HistoryReader(path) as reader:
        parts = (clip(block, from_ms, to_ms) for block in reader.blocks(device, from_ms, to_ms))
        return [row for part in parts if part is not None for row in rows_of(part)]


async def live(
    history: HistoryRecorder, clock: SteppedClock, hours: float, every_s: float, devices: int = 1
) -> None:
    """Hours of readings, with a commit and thinning each half hour."""
    for number in range(1, round(hours * 3600 / every_s) + 1):
        clock.step(every_s)
        for device in range(devices):
            history.add(reading(clock, device=f"device{device}" if device else "climate"))
        if number % max(1, round(1800 / every_s)) == 0:
            await history.flush()
            while await history.thin():
                pass


async def test_what_was_taken_is_there_after_a_restart(make, clock, thread) -> None:
    history = make()
    for _ in range(100):
        clock.step(1)
        history.add(reading(clock))
    assert not history.path.exists()
    await history.close()
    assert history.path.stat().st_mode & 0o777 == 0o600
    rows = stored(history.path)
    assert len(rows) == 100
    assert rows[-1].at_ms == clock.now_ms()
    again = make()
    again.add(reading(clock, 3.25))
    await again.flush()
    assert stored(again.path)[-1].values == {"temperature": 3.25}
    span = stored(again.path, from_ms=START_MS + 10_000, to_ms=START_MS + 20_000)
    assert [row.at_ms for row in span] == [START_MS + 1000 * n for n in range(10, 21)]
    await again.close()


async def test_age_thins_to_minutes_then_to_quarters_and_takes_away(make, clock) -> None:
    history = make(keep_days=9)
    await live(history, clock, 24 * 12, 30)
    now_ms = clock.now_ms()
    ages: dict[int, list[float]] = {}
    rows = stored(history.path)
    for row in rows:
        ages.setdefault(row.step_ms, []).append((now_ms - row.at_ms) / 86_400_000)
    assert set(ages) == {0, 60_000, 900_000}
    assert max(ages[0]) < 1.1
    assert 0.9 < min(ages[60_000]) < max(ages[60_000]) < 8.1
    assert 6.9 < min(ages[900_000]) < max(ages[900_000]) < 10.1
    # No reading is counted twice or left out, whatever it was thinned to.
    assert sum(row.count for row in rows) == (now_ms - rows[0].at_ms) // 30_000 + (rows[0].step_ms > 0)
    minute = next(row for row in rows if row.step_ms == 60_000)
    assert minute.low["temperature"] <= minute.values["temperature"] <= minute.high["temperature"]
    await history.close()


async def test_the_size_is_kept_and_resolution_goes_first(make, clock) -> None:
    history = make(max_bytes=256_000)
    await live(history, clock, 24 * 4, 15, devices=8)
    files = [Path(f"{history.path}{suffix}") for suffix in ("", "-wal")]
    assert sum(file.stat().st_size for file in files if file.exists()) < 256_000
    rows = stored(history.path)
    assert {row.step_ms for row in rows} >= {0, 900_000}
    assert rows[-1].at_ms == clock.now_ms()
    assert history.figures()["lost"] == 0
    await history.close()


async def test_written_bytes_are_few_and_told(make, clock) -> None:
    """Ten devices at 1 Hz: well below 100 bytes a reading with everything that SQLite adds."""
    history = make()
    for _ in range(30):
        for _ in range(60):
            clock.step(1)
            for device in range(10):
                history.add(reading(clock, device=f"device{device}"))
        await history.flush()
    figures = history.figures()
    assert figures["readings"] == 18_000
    assert figures["bytes"] / 18_000 < 12
    assert 0 < figures["written_bytes"] / 18_000 < 40
    await history.close()


async def test_what_is_fast_is_told_by_the_second(make, clock) -> None:
    history = make()
    for number in range(6000):
        clock.step(0.01)
        history.add(reading(clock, float(number % 100)))
    await history.flush()
    rows = stored(history.path)
    assert {row.step_ms for row in rows} == {1000}
    assert sum(row.count for row in rows) == 6000
    assert (rows[30].low["temperature"], rows[30].high["temperature"]) == (0.0, 99.0)
    await history.close()


async def test_readings_before_the_clock_is_set_are_dated_when_it_is(make, clock) -> None:
    clock.set_wall(1000)
    history = make()
    for _ in range(5):
        clock.step(10)
        history.add(reading(clock))
    await history.flush()
    assert not history.path.exists()
    clock.set_wall(START_MS + 1_000_000)
    await history.flush()
    assert [row.at_ms for row in stored(history.path)] == [
        START_MS + 1_000_000 - 10_000 * n for n in range(4, -1, -1)
    ]
    await history.close()


async def test_of_a_board_that_never_gets_the_time_the_newest_wait(make, clock) -> None:
    clock.set_wall(1000)
    history = make()
    for _ in range(5100):
        clock.step(1)
        history.add(reading(clock))
    assert history.figures()["lost"] == 100
    await history.close()


async def test_a_disk_that_takes_nothing_is_survived_and_counted(make, clock, tmp_path) -> None:
    folder = tmp_path / "not_there_yet"
    history = make(folder=folder)
    for _ in range(3):
        clock.step(1)
        history.add(reading(clock))
        await history.flush()
    assert history.figures()["disk_failures"] == 3
    folder.mkdir()
    await history.flush()
    assert len(stored(history.path)) == 3
    assert history.figures()["lost"] == 0
    await history.close()


async def test_what_no_file_can_hold_keeps_nothing_else_from_it(make, clock) -> None:
    history = make()
    history.add(Reading("climate", clock.now_ms(), {"odd": "\ud800", "huge": 10**400}))
    history.add(reading(clock, 2.5, device="good"))
    await history.flush()
    assert history.figures()["lost"] == 1
    assert [row.values for row in stored(history.path, "good")] == [{"temperature": 2.5}]
    await history.close()


@pytest.mark.parametrize("damage", [b"this is no database, but a letter from somebody else", b"\0" * 5000])
async def test_a_damaged_file_is_set_aside_at_once(make, clock, tmp_path, damage) -> None:
    (tmp_path / "history.db").write_bytes(damage)
    history = make()
    history.add(reading(clock))
    await history.flush()
    await history.flush()
    assert len(stored(history.path)) == 1
    aside = list(tmp_path.glob("history.db.damaged-*"))
    assert [file.read_bytes() for file in aside] == [damage]
    assert history.set_aside == str(aside[0])
    await history.close()


async def test_damage_in_the_middle_of_its_life_costs_what_is_damaged(make, clock, tmp_path) -> None:
    history = make()
    await live(history, clock, 6, 5)
    await history.close()
    data = bytearray(history.path.read_bytes())
    data[20 * 1024 : 24 * 1024] = bytes(4096)
    history.path.write_bytes(data)
    again = make()
    await live(again, clock, 30, 60)
    assert stored(again.path)[-1].at_ms == clock.now_ms()
    await again.close()


async def test_a_reader_in_between_sees_whole_commits(make, clock) -> None:
    history = make()
    seen = []
    for _ in range(20):
        clock.step(30)
        history.add(reading(clock))
        await history.flush()
        with HistoryReader(history.path) as reader:
            blocks = reader.blocks("climate", 0, 2**45)
            next(blocks)
            clock.step(30)
            history.add(reading(clock))
            await history.flush()
            seen.append(1 + sum(1 for _ in blocks))
    assert seen == sorted(seen)
    assert len(stored(history.path)) == 40
    await history.close()


async def test_a_wall_clock_that_jumps_back_loses_nothing(make, clock) -> None:
    history = make()
    for offset_ms in (0, -3_600_000, 7_200_000):
        clock.set_wall(START_MS + 90_000_000 + offset_ms)
        for _ in range(10):
            clock.step(1)
            history.add(reading(clock))
    await history.flush()
    rows = stored(history.path)
    assert [row.at_ms for row in rows] == sorted(row.at_ms for row in rows)
    assert len(rows) == 30
    await history.close()


async def test_the_life_of_the_recorder_ends_when_it_is_cancelled(make, clock) -> None:
    history = make()
    life = asyncio.ensure_future(history.run())
    await asyncio.sleep(0)
    history.add(reading(clock))
    life.cancel()
    await asyncio.wait([life], timeout=5)
    assert life.cancelled()
    await history.close()
    assert len(stored(history.path)) == 1


async def test_what_is_too_old_is_no_part_of_the_record(make, clock) -> None:
    """A dead sensor behind a gateway that lives: its last value is not recorded again and again."""
    recorder = make()
    values, flags = {"alive": 2.5e-8, "dead": 52}, {"dead": Flag.STALE}
    recorder.on_readings([Reading("gateway", clock.now_ms(), values, flags)])
    recorder.on_readings([Reading("gateway", clock.now_ms(), values, flags, silence="began")])
    await recorder.flush()
    (row,) = stored(recorder.path, "gateway")
    assert (row.values, row.flags) == ({"alive": 2.5e-8, "dead": None}, {"dead": "stale"})


@pytest.mark.parametrize("days", [20 * 365, -365], ids=["ahead", "back"])
async def test_a_clock_that_steps_costs_no_history(make, clock, days: int) -> None:
    """Neither while it is wrong nor when it is right again; a step counts as two hours at most."""
    clock.step(2 * 365 * DAY_S)
    history = make(keep_days=30)
    await live(history, clock, 24, 30)
    right_ms = clock.now_ms()
    clock.set_wall(right_ms + days * DAY_S * 1000)
    await live(history, clock, 2, 30)
    await history.close()
    history = make(keep_days=30)  # the next process sees it from the file alone
    await live(history, clock, 1, 30)
    clock.set_wall(right_ms + 3 * 3_600_000)
    await live(history, clock, 2, 30)
    rows = stored(history.path)
    assert sum(row.count for row in rows) == (24 + 3 + 2) * 120
    before = [row for row in rows if row.at_ms <= right_ms and row.at_ms > right_ms - DAY_S * 1000]
    # What is thinned now is what the hours since then, and at most two for each step, have made old.
    assert sum(row.step_ms == 0 for row in before) >= (24 - 5 - 2 * 2 - 1) * 120
    await history.close()


async def test_a_time_without_records_makes_them_hardly_older(make, clock) -> None:
    history = make(keep_days=5)
    await live(history, clock, 24, 60)
    clock.step(100 * DAY_S)
    await live(history, clock, 24 * 2, 60)
    assert min(row.at_ms for row in stored(history.path)) < clock.now_ms() - 100 * DAY_S * 1000
    await live(history, clock, 24 * 6, 60)
    assert min(row.at_ms for row in stored(history.path)) > clock.now_ms() - 9 * DAY_S * 1000
    await history.close()
