"""What somebody without rights sends costs no disk, no memory that stays, and nobody else's command."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from device_agent.store.row_checksums import prepare
from support.callers import pipe, stream
from support.deployment import World
from support.processes import high_water_kb
from support.waiting import until

REFUSED = 3000
SESSION_COMMANDS = 200
# Of the process at its highest, over what it was before; the flood alone has 1.5 MB.
MEMORY_MAX_KB = 40_000


def count(folder: Path, sql: str, *words: str) -> int:
    with closing(sqlite3.connect(f"file:{folder}/state/journal.db?mode=ro", uri=True)) as db:
        (found,) = db.execute(sql, words).fetchone()
    return int(found)


@pytest.mark.slow
def test_a_flood_without_rights(world: World, alice: Any, mallory: Any) -> None:
    hers = stream(pipe(alice, {"streams": ["control"]}), "control")
    his = stream(pipe(mallory, {"streams": ["control"], "every_s": 60}), "control")
    his.wait("control", about="session")
    hers.wait("control", about="session")
    before_kb = high_water_kb(world.daemon.process.pid)
    for number in range(REFUSED):
        id_ = f"{number:0200}"
        his.stream.write({"kind": "set", "id": id_, "device": "valve", "values": {"on": True}})
        if number < SESSION_COMMANDS:
            his.stream.write({"kind": "rate", "every_s": 1 + number})
        if number % 500 == 0:
            assert (
                hers.command(kind="set", id=f"a{number}", device="valve", values={"on": number % 1000 == 0})[
                    "state"
                ]
                == "done"
            )
    # A stop is answered each time, after all that came before it.
    assert his.command(kind="stop", id="end")["error"]["code"] == "not_allowed"
    assert hers.command(kind="set", id="off", device="valve", values={"on": False})["state"] == "done"
    assert high_water_kb(world.daemon.process.pid) - before_kb < MEMORY_MAX_KB
    # Hers are there, and no id and no row of his.
    ids = count(world.folder, "SELECT count(*) FROM command WHERE length(id) = 200")
    rows = count(world.folder, "SELECT count(*) FROM actuation WHERE rule LIKE 'not_allowed%'")
    assert (ids, rows) == (0, 0)
    assert world.board is not None
    assert not [e for e in world.board.record() if e["by"] == "guard"], "the guard never took over"


JUNK_BYTES = 200_000_000


@pytest.mark.slow
def test_no_file_makes_the_start_large(world: World) -> None:
    """A file grown by a fault, or by somebody, ends no start and is not taken into memory."""
    before_kb = high_water_kb(world.daemon.process.pid)
    world.daemon.stop()
    state = world.folder / "state"
    with closing(sqlite3.connect(state / "journal.db")) as db, db:
        prepare(db, "", {})
        rows = ((f"org/user_{n % 7}", f"{n:0200}", n, b"\x80", b"x" * 300) for n in range(100_000))
        db.executemany("INSERT INTO command(caller, id, at_ms, what, ack) VALUES(?, ?, ?, ?, ?)", rows)
    grown = [path for path in state.rglob("*") if path.suffix in (".json", ".log") and path.is_file()]
    grown += [state / "run" / "journal.log", state / "run" / "outbox.log"]
    for path in grown:
        with path.open("ab") as file:
            os.truncate(file.fileno(), JUNK_BYTES)
    world.start()
    until(lambda: world.daemon.ask("status")["devices"], "it works")
    assert high_water_kb(world.daemon.process.pid) - before_kb < MEMORY_MAX_KB
