"""The Journal's chain: what was changed shows, what gave way does not, a full disk loses nothing at once."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from device_agent.store.journal import hash_chain
from device_agent.store.journal.journal import Journal
from device_agent.store.store_thread import StoreThread


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A Journal with ten rows, closed."""
    await write(tmp_path / "journal.db", 10)
    return tmp_path / "journal.db"


async def write(path: Path, count: int) -> Journal:
    thread = StoreThread()
    journal = Journal(path, thread)
    await journal.open()
    for number in range(count):
        journal.actuation(1_000 + number, "session 1", "valve", f"on={number}", "done")
    await journal.close()
    await thread.close()
    return journal


def extend(links: hash_chain.HashChain, db: sqlite3.Connection, row: hash_chain.Row) -> None:
    """As the Journal does."""
    links.add([row])
    with db:
        links.write(db)
    links.written()


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        for statement in statements:
            db.execute(statement)


async def test_an_untouched_journal_is_whole_over_restarts(path: Path) -> None:
    await write(path, 5)
    verdict = hash_chain.verify(path)
    assert (verdict["ok"], verdict["rows"], verdict["first"], verdict["last"]) == (True, 15, 1, 15)
    rows = hash_chain.newest(path, 2)
    assert [row["n"] for row in rows] == [14, 15]
    assert rows[-1]["hash"] == verdict["head"]


@pytest.mark.parametrize(
    ("statement", "n", "word"),
    [
        ("UPDATE actuation SET who = 'somebody' WHERE n = 4", 4, "changed"),
        ("UPDATE actuation SET result = '' WHERE n = 1", 1, "changed"),
        ("DELETE FROM actuation WHERE n = 5", 5, "missing"),
        ("DELETE FROM actuation WHERE n = 1", 1, "missing"),
        ("DELETE FROM actuation WHERE n > 8", 9, "missing"),
        ("DELETE FROM actuation", 1, "missing"),
        ("INSERT INTO actuation SELECT 11, at_ms, who, device, what, result, rule, hash FROM actuation "
         "WHERE n = 10", 11, "changed"),
        ("UPDATE chain SET hash = x'00' WHERE place = 'head'", 10, "last"),
    ],
)  # fmt: skip
async def test_what_was_changed_shows(path: Path, statement: str, n: int, word: str) -> None:
    change(path, statement)
    verdict = hash_chain.verify(path)
    assert not verdict["ok"]
    assert verdict["fault"]["n"] == n
    assert word in verdict["fault"]["why"]
    # The daemon goes on writing, and what was done to it stays to be seen.
    await write(path, 3)
    assert not hash_chain.verify(path)["ok"]


async def test_old_rows_give_way_and_the_rest_still_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hash_chain, "ROWS_MAX", 20)
    monkeypatch.setattr(hash_chain, "TRIM_ROWS", 5)
    path = tmp_path / "journal.db"
    await write(path, 57)
    verdict = hash_chain.verify(path)
    assert verdict["ok"]
    assert verdict["last"] == 57
    assert 20 <= verdict["rows"] < 25
    assert verdict["first"] == 58 - verdict["rows"]
    change(path, f"DELETE FROM actuation WHERE n = {verdict['first']}")
    assert hash_chain.verify(path)["fault"]["n"] == verdict["first"]


async def test_rows_of_the_first_version_are_taken_into_the_chain(path: Path) -> None:
    change(path, "ALTER TABLE actuation DROP COLUMN hash", "DROP TABLE chain")
    await write(path, 1)
    assert hash_chain.verify(path)["rows"] == 11


async def test_without_its_ends_a_chain_is_not_made_whole_again(path: Path) -> None:
    change(path, "UPDATE actuation SET what = 'x' WHERE n = 3", "DROP TABLE chain")
    await write(path, 1)
    assert not hash_chain.verify(path)["ok"]


async def test_text_that_no_file_can_hold_stops_no_row_after_it(path: Path) -> None:
    thread = StoreThread()
    journal = Journal(path, thread)
    await journal.open()
    journal.actuation(2_000, "session \udc80", "valve", "on=\ud800", "failed: \udcff", "\udfff")
    journal.actuation(2_001, "session 1", "valve", "on=1", "done")
    await journal.close()
    await thread.close()
    assert (hash_chain.verify(path)["ok"], hash_chain.verify(path)["rows"]) == (True, 12)


def test_a_full_disk_keeps_rows_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hash_chain, "WAITING_MAX", 50)
    row: Callable[[int], hash_chain.Row] = lambda n: (n, "who", "valve", "x" * 200, "done", "")  # noqa: E731
    with closing(sqlite3.connect(tmp_path / "journal.db")) as db:
        links = hash_chain.HashChain()
        links.prepare(db)
        extend(links, db, row(0))
        full = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count = {full + 1}")
        refused = 0
        for n in range(1, 91):
            try:
                extend(links, db, row(n))
            except sqlite3.OperationalError:
                refused += 1
        assert refused > 60
        db.execute("PRAGMA max_page_count = 100000")
        extend(links, db, row(91))
    assert hash_chain.verify(tmp_path / "journal.db")["ok"]
    rows = hash_chain.newest(tmp_path / "journal.db", 1000)
    assert rows[-1]["at_ms"] == 91
    said = [entry for entry in rows if "rows lost" in entry["what"]]
    assert len(said) == 1
    assert len(rows) - 1 + int(said[0]["what"].split()[0]) == 92


def test_an_empty_file_is_no_journal(tmp_path: Path) -> None:
    """What a full disk leaves of the first start."""
    path = tmp_path / "journal.db"
    path.touch()
    for read in (partial(hash_chain.newest, limit=1), hash_chain.verify):
        with pytest.raises(FileNotFoundError, match="there is no Journal"):
            read(path)
