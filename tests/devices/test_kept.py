"""What devices counted: kept in memory and in two files that are written in turn; the newest counts."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from device_agent.devices import kept as kept_module
from device_agent.devices.kept import NAMES, Kept, KeptCounts, newest
from device_agent.store.store_thread import StoreThread
from support.waiting import until_async

FIRST, SECOND = NAMES


@pytest.fixture
async def store() -> AsyncIterator[StoreThread]:
    thread = StoreThread()
    yield thread
    await thread.close()


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    state, runtime = tmp_path / "state", tmp_path / "run"
    state.mkdir()
    runtime.mkdir()
    return state, runtime


def counts(
    store: StoreThread, folders: tuple[Path, Path], values: Kept, *, every_s: float = 0.01
) -> KeptCounts:
    return KeptCounts(*folders, every_s, values, store)


async def test_a_stop_and_a_start(store: StoreThread, folders: tuple[Path, Path]) -> None:
    values: Kept = {"meter": {"count": 12345678901234567, "start": 0.1}, "climate": {}}
    await counts(store, folders, values).close()
    again: Kept = {"meter": {}, "other": {"count": 3}}
    await counts(store, folders, again).load()
    assert again == {"meter": values["meter"], "other": {"count": 3}}


async def test_nothing_new_is_not_written(store: StoreThread, folders: tuple[Path, Path]) -> None:
    values: Kept = {"climate": {}}
    it = counts(store, folders, values)
    await it.close()
    assert not list(folders[0].iterdir())
    values["meter"] = {"count": 1}
    await it.close()
    before = (folders[0] / FIRST).stat()
    await it.close()
    assert (folders[0] / FIRST).stat() == before
    assert not (folders[0] / SECOND).exists()


@asynccontextmanager
async def running(it: KeptCounts) -> AsyncIterator[None]:
    task = asyncio.ensure_future(it.run())
    yield
    task.cancel()
    await asyncio.wait([task])


async def test_a_crash_costs_seconds_where_memory_outlives_it(
    store: StoreThread, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_module, "MEMORY_S", 0.01)
    monkeypatch.setattr(KeptCounts, "_is_memory", lambda _: True)
    state, runtime = folders
    values: Kept = {"meter": {"count": 1}}
    it = counts(store, folders, values, every_s=60)
    async with running(it):
        await until_async((runtime / FIRST).exists)
        values["meter"]["count"] = 2
        await until_async(lambda: '"count": 2' in (runtime / FIRST).read_text())
    again: Kept = {}
    await counts(store, folders, again).load()
    assert again == {"meter": {"count": 2, "unclean": 1}}, "what was counted since may be missing"
    await counts(store, folders, again).close()
    assert newest(state, runtime)[2] == again, "and that is remembered until the driver takes it back"


async def test_a_power_cut_costs_what_came_since_the_last_write(
    store: StoreThread, folders: tuple[Path, Path]
) -> None:
    state, _ = folders
    values: Kept = {"meter": {"count": 1}}
    it = counts(store, folders, values)
    async with running(it):
        await until_async((state / FIRST).exists)
        values["meter"]["count"] = 2
        await until_async((state / SECOND).exists)
        await until_async(lambda: b'"count": 2' in (state / SECOND).read_bytes())
    sizes = {path.name: path.stat().st_size for path in state.iterdir()}
    assert sizes == {FIRST: 4096, SECOND: 4096}
    assert newest(*folders)[2] == {"meter": {"count": 2, "unclean": 1}}
    torn = bytearray((state / SECOND).read_bytes())
    torn[torn.index(b'"count": 2') + 9] = ord("9")
    (state / SECOND).write_bytes(torn)
    assert newest(*folders) == (1, 1, {"meter": {"count": 1, "unclean": 1}}), "the other one is whole"
    again: Kept = {}
    it = counts(store, folders, again)
    await it.load()
    again["meter"] = {"count": 5}
    await it.close()
    assert newest(*folders)[2] == {"meter": {"count": 5}}
    assert json.loads((state / FIRST).read_text())["devices"] == {"meter": {"count": 1}}, "the torn one went"


async def test_the_disk_is_spared(store: StoreThread, folders: tuple[Path, Path]) -> None:
    """One medium for both: only the two files are written, and only when something was counted."""
    state, runtime = folders
    values: Kept = {"meter": {"count": 1}}
    it = counts(store, folders, values)
    async with running(it):
        await until_async((state / FIRST).exists)
        for _ in range(20):
            await store.run(lambda: None)
        assert not (state / SECOND).exists()
        values["meter"]["count"] = 2
        await until_async((state / SECOND).exists)
    assert not list(runtime.iterdir())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0",
        b"[]",
        b"{}",
        b'{"version": 1, "devices": 3}',
        b'{"version": 1, "devices": {"a": 3}}',
        b'{"version": 9, "seal": 1, "devices": {"a": {"count": 7}}}',
        b"[" * 9999,
    ],
)
@pytest.mark.parametrize("place", [0, 1])
def test_a_damaged_file_is_passed_over_and_written_next(
    folders: tuple[Path, Path], data: bytes, place: int
) -> None:
    state, _ = folders
    (state / NAMES[1 - place]).write_text(
        '{"version": 7, "devices": {"a": {"count": 5, "odd": 1e999, "text": "x"}}}'
    )
    (state / NAMES[place]).write_bytes(data)
    assert newest(*folders) == (place, 7, {"a": {"count": 5}})


async def test_a_disk_that_takes_nothing_ends_nothing_and_is_told_once(
    store: StoreThread, folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    state, runtime = folders
    values: Kept = {"meter": {"count": 1}}
    it = counts(store, (state / "absent", runtime), values)
    await it.close()
    await it.close()
    (state / "absent").mkdir()
    await it.close()
    assert newest(state / "absent", runtime)[2] == values
    assert capsys.readouterr().out.count("counts_not_written") == 1
