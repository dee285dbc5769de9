"""What devices counted, in two files of which the newest counts."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from device_agent.devices import kept as kept_module
from device_agent.devices.kept import NAME, Kept, KeptCounts, newest
from device_agent.store.store_thread import StoreThread
from support.waiting import until_async


@pytest.fixture
async def store() -> AsyncIterator[StoreThread]:
    thread = StoreThread()
    yield thread
    await thread.close()


def counts(store: StoreThread, state: Path, runtime: Path, values: Kept) -> KeptCounts:
    for folder in (state, runtime):
        folder.mkdir(exist_ok=True)
    return KeptCounts(state, runtime, values, store)


async def test_a_stop_and_a_start(store: StoreThread, tmp_path: Path) -> None:
    values: Kept = {"meter": {"count": 12345678901234567, "start": 0.1}}
    await counts(store, tmp_path / "state", tmp_path / "run", values).close()
    again: Kept = {"meter": {}, "other": {"count": 3}}
    await counts(store, tmp_path / "state", tmp_path / "run", again).load()
    assert again == {**values, "other": {"count": 3}}


async def test_nothing_new_is_not_written(store: StoreThread, tmp_path: Path) -> None:
    values: Kept = {}
    it = counts(store, tmp_path / "state", tmp_path / "run", values)
    await it.close()
    assert not (tmp_path / "state" / NAME).exists()
    values["meter"] = {"count": 1}
    await it.close()
    before = (tmp_path / "state" / NAME).stat()
    await it.close()
    assert (tmp_path / "state" / NAME).stat() == before


async def test_a_crash_costs_seconds_where_memory_outlives_it(
    store: StoreThread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_module, "MEMORY_S", 0.01)
    monkeypatch.setattr(KeptCounts, "_is_memory", lambda _: True)
    values: Kept = {"meter": {"count": 1}}
    it = counts(store, tmp_path / "state", tmp_path / "run", values)
    await it.close()
    running = asyncio.ensure_future(it.run())
    values["meter"]["count"] = 2
    await until_async(lambda: (tmp_path / "run" / NAME).exists())
    running.cancel()
    await asyncio.wait([running])
    assert json.loads((tmp_path / "state" / NAME).read_text())["devices"]["meter"] == {"count": 1}
    again: Kept = {}
    await counts(store, tmp_path / "state", tmp_path / "run", again).load()
    assert again == {"meter": {"count": 2}}


async def test_the_disk_is_spared(
    store: StoreThread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One medium for both directories: nothing is written there before `DISK_S` has gone by."""
    monkeypatch.setattr(kept_module, "MEMORY_S", 0.001)
    monkeypatch.setattr(kept_module, "DISK_S", 0.05)
    values: Kept = {"meter": {"count": 1}}
    it = counts(store, tmp_path / "state", tmp_path / "run", values)
    running = asyncio.ensure_future(it.run())
    await until_async(lambda: (tmp_path / "state" / NAME).exists())
    running.cancel()
    await asyncio.wait([running])
    assert not (tmp_path / "run" / NAME).exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0",
        b"[]",
        b"{}",
        b'{"version": 1, "devices": 3}',
        b'{"version": 1, "devices": {"a": 3}}',
        b"[" * 9999,
    ],
)
def test_a_damaged_file_is_set_aside_and_the_other_one_counts(tmp_path: Path, data: bytes) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_text('{"version": 7, "devices": {"a": {"count": 5, "odd": 1e999, "text": "x"}}}')
    bad.write_bytes(data)
    assert newest(bad, good) == newest(good, bad) == (7, {"a": {"count": 5}})
    assert [path.name.partition("-")[0] for path in tmp_path.iterdir() if path != good] == ["bad.damaged"]


async def test_a_full_disk_ends_nothing(store: StoreThread, tmp_path: Path) -> None:
    it = KeptCounts(tmp_path / "absent", tmp_path, {"meter": {"count": 1}}, store)
    await it.close()
    (tmp_path / "absent").mkdir()
    await it.close()
    assert newest(tmp_path / "absent" / NAME)[1] == {"meter": {"count": 1}}
