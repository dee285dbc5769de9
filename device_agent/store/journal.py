"""The Journal: tasks, commands and actuations, so that nothing is done twice and everything can be told.

One SQLite file (mode 0600: it holds tasks' write tokens), WAL, synchronous=FULL. A damaged one is set aside,
reported, and a new one begun: the start never fails.
"""

import asyncio
import os
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgpack
import structlog

from device_agent.network import Caller, Part, StartTask
from device_agent.store.thread import StoreThread

log = structlog.get_logger("journal")

SCHEMA = """
CREATE TABLE IF NOT EXISTS task(
    id TEXT PRIMARY KEY, started_ms INTEGER NOT NULL, ended_ms INTEGER, start BLOB, session BLOB);
CREATE TABLE IF NOT EXISTS command(
    caller TEXT NOT NULL, id TEXT NOT NULL, at_ms INTEGER NOT NULL, ack BLOB, what BLOB NOT NULL,
    PRIMARY KEY(caller, id));
CREATE TABLE IF NOT EXISTS actuation(
    n INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, who TEXT NOT NULL, device TEXT NOT NULL,
    what TEXT NOT NULL, result TEXT NOT NULL, rule TEXT NOT NULL);
PRAGMA user_version = 1;
"""
DAY_MS = 86_400_000
# A StartTask is delivered again within minutes; a month is far beyond and still small.
TASK_KEEP_MS = 30 * DAY_MS
TASKS_MAX = 20_000
COMMANDS_MAX = 50_000
ACTUATIONS_MAX = 100_000


class Journal:
    """Memory answers, the file remembers. All methods belong to the event loop."""

    def __init__(self, path: Path, thread: StoreThread) -> None:
        self._path = path
        self._thread = thread
        self._db: sqlite3.Connection | None = None
        self._tasks: OrderedDict[str, bool] = OrderedDict()
        self._commands: OrderedDict[tuple[str, str], dict[str, Any] | None] = OrderedDict()
        self._waiting: dict[tuple[str, str], asyncio.Future[dict[str, Any]]] = {}
        self.set_aside = ""
        self.failures = 0

    # -- life ----------------------------------------

    async def open(self) -> None:
        await self._thread.run(self._open)

    def _open(self) -> None:
        try:
            self._db = self._connect()
        except sqlite3.DatabaseError as error:
            aside = self._path.with_suffix(f".damaged-{int(time.time())}")
            log.error("journal_set_aside", file=str(self._path), aside=str(aside), error=str(error))
            for suffix in ("", "-wal", "-shm"):
                part = Path(f"{self._path}{suffix}")
                if part.exists():
                    part.replace(f"{aside}{suffix}")
            self.set_aside = str(aside)
            self._db = self._connect()

    def _connect(self) -> sqlite3.Connection:
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        db = sqlite3.connect(self._path, check_same_thread=False)
        try:
            db.execute("PRAGMA page_size = 1024")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.executescript(SCHEMA)
            if db.execute("PRAGMA quick_check").fetchone()[0] != "ok":
                raise sqlite3.DatabaseError("quick_check found damage")
            self._read_all(db)
        except sqlite3.DatabaseError:
            db.close()
            raise
        return db

    def _read_all(self, db: sqlite3.Connection) -> None:
        now_ms = time.time_ns() // 1_000_000
        with db:
            db.execute(
                "DELETE FROM task WHERE ended_ms IS NOT NULL AND ended_ms < ?", (now_ms - TASK_KEEP_MS,)
            )
            db.execute("DELETE FROM command WHERE at_ms < ?", (now_ms - DAY_MS,))
            db.execute(
                "DELETE FROM actuation WHERE n <= (SELECT max(n) FROM actuation) - ?", (ACTUATIONS_MAX,)
            )
        rows = db.execute("SELECT id, ended_ms FROM task ORDER BY started_ms DESC LIMIT ?", (TASKS_MAX,))
        self._tasks = OrderedDict((id_, ended is not None) for id_, ended in reversed(rows.fetchall()))
        rows = db.execute("SELECT caller, id, ack FROM command ORDER BY at_ms DESC LIMIT ?", (COMMANDS_MAX,))
        for caller, id_, ack in reversed(rows.fetchall()):
            self._commands[(caller, id_)] = None if ack is None else msgpack.unpackb(ack)

    async def close(self) -> None:
        def close() -> None:
            if self._db is not None:
                self._db.close()
                self._db = None

        await self._thread.run(close)

    def _execute(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[Any]:
        assert self._db is not None
        with self._db:
            return self._db.execute(sql, parameters).fetchall()

    def _later(self, sql: str, parameters: tuple[Any, ...]) -> None:
        def job() -> None:
            try:
                self._execute(sql, parameters)
            except sqlite3.Error as error:
                self._failed(error)

        self._thread.later(job)

    async def _now(self, sql: str, parameters: tuple[Any, ...]) -> None:
        """Durable when it returns. A full or broken disk is reported; the work goes on from memory."""
        try:
            await self._thread.run(lambda: self._execute(sql, parameters))
        except (sqlite3.Error, TimeoutError) as error:
            self._failed(error)

    def _failed(self, error: BaseException) -> None:
        self.failures += 1
        if self.failures == 1 or self.failures % 1000 == 0:
            log.error("journal_not_written", file=str(self._path), error=str(error), failures=self.failures)

    # -- tasks ----------------------------------------

    def knows_task(self, task_id: str) -> bool:
        """Whether this task ever began here, within the last month."""
        return task_id in self._tasks

    def begin_task(self, start: StartTask, now_ms: int) -> None:
        self._tasks[start.task_id] = False
        if len(self._tasks) > TASKS_MAX:
            self._tasks.popitem(last=False)
        blob = msgpack.packb(asdict(start))
        self._later(
            "INSERT OR REPLACE INTO task(id, started_ms, start) VALUES(?, ?, ?)",
            (start.task_id, now_ms, blob),
        )

    def note_session(self, task_id: str, session: Mapping[str, Any]) -> None:
        """What the session needs to go on in a later process."""
        self._later("UPDATE task SET session = ? WHERE id = ?", (msgpack.packb(dict(session)), task_id))

    def end_task(self, task_id: str, now_ms: int) -> None:
        self._tasks[task_id] = True
        self._later(
            "UPDATE task SET ended_ms = ?, start = NULL, session = NULL WHERE id = ?", (now_ms, task_id)
        )

    async def unfinished_tasks(self) -> list[tuple[StartTask, dict[str, Any]]]:
        """Tasks that were running when the last process ended, oldest first."""
        rows = await self._thread.run(
            lambda: self._execute(
                "SELECT start, session FROM task WHERE ended_ms IS NULL AND start IS NOT NULL "
                "ORDER BY started_ms"
            )
        )
        return [(_start(msgpack.unpackb(a)), msgpack.unpackb(b) if b else {}) for a, b in rows]

    # -- commands ----------------------------------------

    async def command_seen(self, caller: str, id_: str) -> dict[str, Any] | None:
        """The first answer to this id, waited for if it is under way; None if the id is new.

        A command whose process died before it answered is `unknown`.
        """
        key = (caller, id_)
        if key in self._waiting:
            return await asyncio.shield(self._waiting[key])
        if key not in self._commands:
            return None
        return self._commands[key] or {"id": id_, "state": "unknown", "error": dict(_DIED)}

    async def begin_command(self, caller: str, id_: str, what: Mapping[str, Any], now_ms: int) -> None:
        """Durable before anything moves."""
        key = (caller, id_)
        self._commands[key] = None
        if len(self._commands) > COMMANDS_MAX:
            self._commands.popitem(last=False)
        self._waiting[key] = asyncio.get_running_loop().create_future()
        await self._now(
            "INSERT OR REPLACE INTO command(caller, id, at_ms, what) VALUES(?, ?, ?, ?)",
            (caller, id_, now_ms, msgpack.packb(dict(what))),
        )

    def finish_command(self, caller: str, id_: str, ack: Mapping[str, Any]) -> None:
        key = (caller, id_)
        self._commands[key] = dict(ack)
        waiting = self._waiting.pop(key, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(dict(ack))
        self._later(
            "UPDATE command SET ack = ? WHERE caller = ? AND id = ?", (msgpack.packb(dict(ack)), *key)
        )

    async def unfinished_commands(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Commands that began in an earlier process and were never answered: (caller, id, what)."""
        rows = await self._thread.run(
            lambda: self._execute("SELECT caller, id, what FROM command WHERE ack IS NULL")
        )
        return [(caller, id_, msgpack.unpackb(what)) for caller, id_, what in rows]

    # -- actuations ----------------------------------------

    def actuation(self, at_ms: int, who: str, device: str, what: str, result: str, rule: str = "") -> None:
        """Who did what when with which result, for people."""
        self._later(
            "INSERT INTO actuation(at_ms, who, device, what, result, rule) VALUES(?, ?, ?, ?, ?, ?)",
            (at_ms, who, device, what, result, rule),
        )

    async def actuations(self, limit: int = 100) -> list[dict[str, Any]]:
        """The newest actuations, oldest first."""
        names = ("n", "at_ms", "who", "device", "what", "result", "rule")
        rows = await self._thread.run(
            lambda: self._execute(
                f"SELECT {', '.join(names)} FROM actuation ORDER BY n DESC LIMIT ?", (limit,)
            )
        )
        return [dict(zip(names, row, strict=True)) for row in reversed(rows)]


_DIED = {"code": "internal", "message": "the agent stopped while it carried out this command"}


def _start(stored: dict[str, Any]) -> StartTask:
    caller = Caller(**stored.pop("caller"))
    parts = tuple(Part(**part) for part in stored.pop("parts"))
    return StartTask(caller=caller, parts=parts, **stored)
