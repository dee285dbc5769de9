"""The Journal: tasks, commands and actuations, so that nothing is done twice and everything is on record.

One SQLite file (mode 0600: it holds tasks' write tokens), WAL, synchronous=FULL. A damaged one is set aside,
logged, and a new one begun: the start never fails. Commands that a full disk refuses are kept in the runtime
directory meanwhile (`command_fallback`), so that none is carried out twice.
"""

import asyncio
import contextlib
import os
import shutil
import sqlite3
import tempfile
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgpack
import structlog

from device_agent.clock import EARLIEST_TRUE_MS, SystemClock, undated
from device_agent.errors import Fault, NotRecorded
from device_agent.messages.acks import Ack, AckState
from device_agent.network import Caller, Part, StartTask
from device_agent.store import row_checksums
from device_agent.store.files import set_aside
from device_agent.store.journal import hash_chain, safe_transitions
from device_agent.store.journal.command_fallback import CommandFallback, CommandRow
from device_agent.store.journal.complete_mark import CompleteMark
from device_agent.store.journal.known_commands import IDS_MAX, TRIM_SQL, KnownCommands, digest, forget_sql
from device_agent.store.journal.safe_transitions import SafeTransition
from device_agent.store.row_checksums import column
from device_agent.store.salvage import Damaged, is_damage
from device_agent.store.store_thread import StoreThread, a_day, written_bytes
from device_agent.text.printable import printable, within

log = structlog.get_logger("journal")

T = TypeVar("T", bound=tuple[Any, ...])

CHECKED = {
    "task": "id, ended_ms, start, session",
    "command": "caller, id, at_ms, ack, what",
    "turn": safe_transitions.COLUMNS,
}
SCHEMA = f"""
CREATE TABLE IF NOT EXISTS task(
    id TEXT PRIMARY KEY, started_ms INTEGER NOT NULL, ended_ms INTEGER, start BLOB, session BLOB,
    {column(CHECKED["task"])});
CREATE TABLE IF NOT EXISTS command(
    caller TEXT NOT NULL, id TEXT NOT NULL, at_ms INTEGER NOT NULL, ack BLOB, what BLOB NOT NULL,
    {column(CHECKED["command"])}, PRIMARY KEY(caller, id));
CREATE TABLE IF NOT EXISTS used(caller TEXT NOT NULL, digest INTEGER NOT NULL, at_ms INTEGER NOT NULL);
PRAGMA user_version = 2;
"""
_BEGUN = "INSERT OR REPLACE INTO command(caller, id, at_ms, what, ack) VALUES(?, ?, ?, ?, ?)"
_ANSWERED = """INSERT INTO command(caller, id, at_ms, what, ack) VALUES(?, ?, ?, ?, ?)
    ON CONFLICT(caller, id) DO UPDATE SET ack = ifnull(excluded.ack, ack)"""
DAY_MS = 86_400_000
# A StartTask is delivered again within minutes; a month is far beyond and still small.
TASK_KEEP_MS = 30 * DAY_MS
TASKS_MAX = 20_000
NEWEST_KEPT = 1000
TRIM_EVERY = 1000
# Bytes of a text of an actuation.
ROW_TEXT_MAX = 500
# Statements, and actuations, that wait for the disk.
WAITING_MAX = 10_000


class UnfinishedTask(NamedTuple):
    """A task that was running when the last process ended, with what `note_session` stored for it."""

    start: StartTask
    session: dict[str, Any]


class UnfinishedCommand(NamedTuple):
    """A command that an earlier process began and never answered."""

    caller: str
    id: str
    device: str


class Journal:
    """Answers from memory, and writes on a thread of its own. All methods belong to the event loop."""

    def __init__(
        self,
        path: Path,
        thread: StoreThread,
        now_ms: Callable[[], int] | None = None,
        runtime_folder: Path | None = None,
    ) -> None:
        """`now_ms`: the runtime's clock (`device_agent.clock`), by which old rows are deleted.

        `runtime_folder` takes what the disk refuses; without it, the file's own folder.
        """
        self._path = path
        self._runtime_folder = runtime_folder or path.parent
        self._fallback = CommandFallback(self._runtime_folder / "journal.log")
        self._mark = CompleteMark(path.with_name("journal.complete"))
        self._copy: Path | None = None
        self._past_unknown = False
        self._now_ms = now_ms or SystemClock().now_ms
        self._thread = thread
        self._db: sqlite3.Connection | None = None
        self._tasks: OrderedDict[str, None] = OrderedDict()
        self._commands = KnownCommands()
        self._waiting: dict[tuple[str, str], asyncio.Future[Ack]] = {}
        self._chain = hash_chain.HashChain()
        self._statements: deque[tuple[str, tuple[Any, ...]]] = deque()
        self._actuations: deque[hash_chain.Row] = deque()
        self._write_is_due = False
        self._overflowed = False
        self._unrecorded: set[tuple[str, str]] = set()
        self._transitions = 0
        self._failures = 0
        self._written_bytes = 0
        self._began_s = time.monotonic()

    # -- opening and closing ----------------------------------------

    async def open(self) -> None:
        await self._thread.run(self._open)

    def _open(self) -> None:
        first_start = False
        with contextlib.suppress(OSError):
            first_start = not self._path.exists()
        try:
            self._db = self._connect(self._path)
        except (sqlite3.DatabaseError, OSError) as error:
            if is_damage(error):
                aside = str(set_aside(self._path))
                log.error("journal_set_aside", file=str(self._path), aside=aside, error=str(error))
                self._mark.note_lost()
                self._db = self._connect(self._path)
            else:
                self._db = self._open_copy(error)
        self._mark.open(first_start=first_start)
        self._fallback.load()
        for row in self._fallback:
            if row.ack is not None or row.key not in self._commands:
                self._commands.put(row.key, row.ack)
        self._commands.take_forgotten()  # as `_trim` did on the disk
        self._catch_up()

    def _open_copy(self, error: BaseException) -> sqlite3.Connection:
        """For a disk that cannot be written: work on a copy until the process ends."""
        self._failures += 1
        for parent in (tempfile.gettempdir(), self._runtime_folder):
            try:
                self._copy = Path(tempfile.mkdtemp(prefix="device-agent-journal-", dir=parent))
                copy = self._copy / self._path.name
                for suffix in ("", "-wal"):
                    part = Path(f"{self._path}{suffix}")
                    if part.exists():
                        shutil.copyfile(part, f"{copy}{suffix}")
                db = self._connect(copy)
            except (sqlite3.Error, OSError) as worse:
                self._drop_copy()
                log.warning("journal_not_copied", into=str(parent), error=str(worse))
            else:
                log.error(
                    "journal_not_written", file=str(self._path), error=str(error), until_the_end=str(copy)
                )
                return db
        # It is not known which commands were carried out before: none is carried out now.
        self._past_unknown = True
        log.error("journal_not_written", file=str(self._path), error=str(error), until_the_end="memory")
        return self._connect(Path(":memory:"))

    def _drop_copy(self) -> None:
        if self._copy is not None:
            shutil.rmtree(self._copy, ignore_errors=True)
            self._copy = None

    def _connect(self, path: Path) -> sqlite3.Connection:
        if path != Path(":memory:"):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        db = sqlite3.connect(path, check_same_thread=False)
        db.create_function("digest", 1, digest)
        try:
            # `integrity_check` would leave 2 MB of an old Journal in memory.
            for pragma in (
                "page_size = 1024",
                "cache_size = -256",
                "journal_mode = WAL",
                "synchronous = FULL",
            ):
                db.execute(f"PRAGMA {pragma}")
            row_checksums.prepare(db, SCHEMA + safe_transitions.SCHEMA, CHECKED)
            check = "PRAGMA integrity_check(1)"
            if db.execute(check).fetchone()[0] != "ok":
                db.execute("REINDEX")
                if (found := db.execute(check).fetchone()[0]) != "ok":
                    raise Damaged(f"integrity_check found damage: {found}")
            n, head = self._chain.prepare(db)
            self._read_all(db)
        except BaseException:
            db.close()
            raise
        log.info("journal_open", last=n, head=head.hex())
        return db

    def _trim(self, db: sqlite3.Connection) -> None:
        """Once, at the start: it takes long. Later the disk gives up what memory does."""
        with db:
            for sql in TRIM_SQL:
                db.execute(sql)
        now_ms = self._now_ms()
        if undated(now_ms):
            return  # everything would be old, or nothing
        with db:
            # Rows from before the clock was set are taken as new.
            for table in ("command", "used"):
                db.execute(f"UPDATE {table} SET at_ms = ? WHERE at_ms < ?", (now_ms, EARLIEST_TRUE_MS))
            db.execute("DELETE FROM used WHERE at_ms < ?", (now_ms - DAY_MS,))
            db.execute("UPDATE task SET ended_ms = ? WHERE ended_ms < ?", (now_ms, EARLIEST_TRUE_MS))
            for table, column, whose, keep_ms, most in (
                ("task", "ended_ms", "''", TASK_KEEP_MS, TASKS_MAX),
                ("command", "at_ms", "caller", DAY_MS, IDS_MAX),
            ):
                # The newest stay whatever the clock says, for it may have jumped; and none stays for ever.
                age = f"row_number() OVER (PARTITION BY {whose} ORDER BY rowid DESC) AS age"
                db.execute(
                    f"DELETE FROM {table} WHERE {column} NOT NULL AND rowid IN (SELECT id_ FROM "
                    f"(SELECT rowid AS id_, {column} AS ms, {age} FROM {table}) "
                    "WHERE (ms < ? OR age > ?) AND age > ?)",
                    (now_ms - keep_ms, most, NEWEST_KEPT),
                )

    def _read_all(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._job(self._trim)
        rows = db.execute("SELECT id FROM task ORDER BY rowid DESC LIMIT ?", (TASKS_MAX,))
        self._tasks = OrderedDict((id_, None) for (id_,) in reversed(rows.fetchall()))
        self._commands.put_used(db.execute("SELECT caller, digest FROM used ORDER BY digest"))
        for caller, id_, ack in db.execute("SELECT caller, id, ack FROM command ORDER BY rowid"):
            self._commands.put((caller, id_), ack)

    async def close(self) -> None:
        def close() -> None:
            if self._db is not None:
                self._write_waiting()
                self._db.close()
                self._db = None

        await self._thread.run(close)

    def _execute(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[Any]:
        assert self._db is not None
        with self._db:
            return self._db.execute(sql, parameters).fetchall()

    def _add(self, waiting: deque[T], item: T) -> None:
        if len(waiting) >= WAITING_MAX:
            *_, row = waiting.popleft()
            if isinstance(row, CommandRow) and row.ack is None:
                self._unrecorded.add(row.key)
            self._overflowed = True
            self._failed(TimeoutError("the disk takes too long, and more waits than is kept"))
        waiting.append(item)
        if not self._write_is_due:
            self._write_is_due = True
            self._thread.later(self._write_waiting)

    def _later(self, sql: str, parameters: tuple[Any, ...]) -> None:
        self._add(self._statements, (sql, parameters))

    def _write_waiting(self) -> None:
        """All that waits, in one transaction: however much it is, the next command waits for one commit.

        Commands that the disk refuses go to the fallback; `_unrecorded` are those that no process after this
        one would know.
        """
        self._write_is_due = False
        if self._overflowed:
            self._overflowed = False
            self._mark.note_lost()
        statements = _taken(self._statements)
        self._chain.add(_taken(self._actuations))

        def write(db: sqlite3.Connection, chain: bool = True) -> None:
            with db:
                for sql, parameters in statements:
                    db.execute(sql, parameters)
                if chain:
                    self._chain.write(db)
            if chain:
                self._chain.written()

        # What damage there is to the chain keeps no command from being recorded.
        written = self._job(write) or (self._chain.waits and self._job(lambda db: write(db, chain=False)))
        if written and self._durable:
            self._catch_up()
            self._mark.note_written()
            return
        for _, row in statements:
            if isinstance(row, CommandRow):
                self._mark.note_lost()
                kept = self._fallback.add(row) and not self._past_unknown
                if row.ack is None and not kept:
                    self._unrecorded.add(row.key)

    def _job(self, write: Callable[[sqlite3.Connection], object]) -> bool:
        """Write on the Journal's thread; False for a failure, which is logged and counted."""
        before = written_bytes()
        try:
            assert self._db is not None
            write(self._db)
            return True
        except (sqlite3.Error, ValueError, OverflowError) as error:
            self._failed(error)
            return False
        finally:
            self._written_bytes += written_bytes() - before

    def _failed(self, error: BaseException) -> None:
        self._failures += 1
        if self._failures == 1 or self._failures % 1000 == 0:
            log.error("journal_not_written", file=str(self._path), error=str(error), failures=self._failures)

    def figures(self) -> dict[str, Any]:
        """For `status`."""
        return {
            "written_bytes": self._written_bytes,
            "written_bytes_per_day": a_day(self._written_bytes, time.monotonic() - self._began_s),
            "disk_failures": self._failures,
        }

    async def flushed(self) -> None:
        """Returns when all that was written before is on the disk, or its failure was counted."""
        try:
            await self._thread.run(lambda: None)
        except TimeoutError as error:
            self._failed(error)

    # -- tasks ----------------------------------------

    def knows_task(self, task_id: str) -> bool:
        """Whether this task ever began here, within the last month."""
        return task_id in self._tasks

    def begin_task(self, start: StartTask, now_ms: int) -> None:
        self._tasks[start.task_id] = None
        if len(self._tasks) > TASKS_MAX:
            oldest, _ = self._tasks.popitem(last=False)
            self._later("DELETE FROM task WHERE id = ? AND ended_ms NOT NULL", (oldest,))
        self._later(
            "INSERT OR REPLACE INTO task(id, started_ms, start) VALUES(?, ?, ?)",
            (start.task_id, now_ms, msgpack.packb(asdict(start))),
        )

    def note_session(self, task_id: str, session: Mapping[str, Any]) -> None:
        """What the session needs to go on in a later process."""
        self._later("UPDATE task SET session = ? WHERE id = ?", (msgpack.packb(dict(session)), task_id))

    def end_task(self, task_id: str, now_ms: int) -> None:
        self._later(
            "UPDATE task SET ended_ms = ?, start = NULL, session = NULL WHERE id = ?", (now_ms, task_id)
        )

    async def unfinished_tasks(self) -> list[UnfinishedTask]:
        """Oldest first."""
        rows = await self._thread.run(
            lambda: self._execute(
                "SELECT start, session FROM task WHERE ended_ms IS NULL AND start IS NOT NULL ORDER BY rowid"
            )
        )
        return [
            UnfinishedTask(_start(msgpack.unpackb(start)), msgpack.unpackb(session) if session else {})
            for start, session in rows
        ]

    # -- commands ----------------------------------------

    def knows_command(self, caller: str, id_: str) -> bool:
        """Whether this id is taken, within its day."""
        return (caller, id_) in self._commands

    def is_complete_since(self, age_s: float) -> bool:
        """Whether a command that was sent so long ago is new if its id is not known. It is not where the
        disk refused notes of it, or lost them, and the process died as well."""
        return self._mark.covers(age_s)

    def full_s(self, caller: str) -> float:
        """For how long no more ids of this caller are remembered; 0 while there is room."""
        return self._commands.full_s(caller)

    async def first_answer(self, caller: str, id_: str) -> Ack | None:
        """The first answer to this id, waited for if it is under way; None if the id is new.

        After None the id is taken, unless there is no room (`full_s`), and `finish_command` must follow. A
        command whose process died before it answered is `unknown`; so is one whose answer is kept no more.
        """
        key = (caller, id_)
        if key in self._waiting:
            return await asyncio.shield(self._waiting[key])
        if key not in self._commands:
            if not self.full_s(caller):
                self._commands.put(key, None)
                self._waiting[key] = asyncio.get_running_loop().create_future()
            return None
        stored = self._commands.answer(key)
        return cut_off(id_) if stored is None else _answer(stored, id_)

    async def begin_command(self, caller: str, id_: str, device: str, now_ms: int) -> None:
        """Record a command; durable on return, before anything moves. Raises NotRecorded."""
        row = CommandRow(caller, id_, now_ms, msgpack.packb({"device": device}), None)
        try:
            self._later(_BEGUN, row)
            recorded = await self._thread.run(lambda: row.key not in self._unrecorded)
        except TimeoutError as error:
            self._failed(error)
            recorded = False
        self._unrecorded.discard(row.key)
        if not recorded:
            raise NotRecorded(
                "nothing moved: neither the state directory nor the runtime directory takes a note of this "
                "command, and nobody would know later that it was done; make room on the device's disk"
            )

    @property
    def _durable(self) -> bool:
        """Whether the next process will read what is written."""
        return self._copy is None and not self._past_unknown

    def _catch_up(self) -> None:
        """Write the rows that the disk refused before; a copy gets them too, but ends with this process."""

        def write(db: sqlite3.Connection) -> None:
            with db:
                db.executemany(_ANSWERED, self._fallback)

        if self._fallback and self._job(write) and self._durable:
            self._fallback.end()

    def finish_command(self, caller: str, ack: Ack, now_ms: int, id_: str = "") -> None:
        """Store the answer for a day, under `id_` if that is not the answer's own."""
        key, answer = (caller, id_ or ack.id), msgpack.packb(ack.members())
        if key not in self._commands and self.full_s(caller):
            return
        self._commands.put(key, answer)
        waiting = self._waiting.pop(key, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(ack)
        row = CommandRow(*key, now_ms, msgpack.packb({}), answer)
        self._later(_ANSWERED, row)
        for forgotten in self._commands.take_forgotten():
            for statement in forget_sql(forgotten, now_ms):
                self._later(*statement)

    async def unfinished_commands(self) -> list[UnfinishedCommand]:
        """Those of earlier processes."""

        def read() -> dict[tuple[str, str], bytes]:
            rows = self._execute("SELECT caller, id, what FROM command WHERE ack IS NULL")
            found = {(caller, id_): what for caller, id_, what in rows}
            found.update({row.key: row.what for row in self._fallback})
            return found

        found = await self._thread.run(read)
        return [
            UnfinishedCommand(*key, str(msgpack.unpackb(what).get("device", "")))
            for key, what in found.items()
            if key not in self._commands or self._commands.answer(key) is None
        ]

    # -- actuations ----------------------------------------

    def actuation(self, at_ms: int, who: str, device: str, what: str, result: str, rule: str = "") -> None:
        """Record who did what, when, with which result. Rows wait in memory while the disk is full."""
        row = (at_ms, _short(who), _short(device), _short(what), _short(result), _short(rule))
        self._add(self._actuations, row)

    async def actuations(self, limit: int = 100) -> list[dict[str, Any]]:
        """The newest actuations, oldest first."""
        assert self._db is not None
        db = self._db
        return await self._thread.run(lambda: hash_chain.select(db, limit))

    # -- safe transitions ----------------------------------------

    def note_transitions(self, boot: str, what: list[SafeTransition]) -> None:
        """Points left their safe values or came back; in order with the commands that moved them."""
        for one in what:
            self._later(*safe_transitions.note_sql(boot, one))
        self._transitions += len(what)
        if self._transitions >= TRIM_EVERY:
            self._transitions = 0
            self._thread.later(lambda: self._job(lambda db: safe_transitions.trim(db, boot, what[-1].at_s)))

    async def transitions(self, boot: str, now_s: float) -> list[SafeTransition]:
        """What limits must know of earlier processes, oldest first (`store.journal.safe_transitions`)."""
        assert self._db is not None
        db = self._db

        def read() -> list[SafeTransition]:
            self._job(lambda db: safe_transitions.trim(db, boot, now_s))
            return safe_transitions.load(db, boot)

        return await self._thread.run(read)

    # -- the chain ----------------------------------------

    async def verify(self) -> dict[str, Any]:
        """Whether the chain of actuations fits (`chain.verify`). The work goes on meanwhile."""
        return await asyncio.to_thread(hash_chain.verify, self._path)


def cut_off(id_: str) -> Ack:
    """The answer to a command that an earlier process began and never answered."""
    fault = Fault("internal", "the agent stopped while it carried out this command")
    return Ack(id_, AckState.UNKNOWN, error=fault)


def _answer(stored: bytes, id_: str) -> Ack:
    try:
        return Ack.from_members(msgpack.unpackb(stored))
    except (ValueError, LookupError, TypeError, AttributeError):
        fault = Fault("internal", "this id was used within the last day, and its answer is kept no more")
        return Ack(id_, AckState.UNKNOWN, error=fault)


def _short(text: str) -> str:
    return within(printable(text, ROW_TEXT_MAX), ROW_TEXT_MAX)


def _taken(waiting: deque[T]) -> list[T]:
    """All that waits. On the Journal's thread, while the event loop may append."""
    taken: list[T] = []
    while waiting:
        taken.append(waiting.popleft())
    return taken


def _start(stored: dict[str, Any]) -> StartTask:
    caller = Caller(**stored.pop("caller"))
    parts = tuple(Part(**part) for part in stored.pop("parts"))
    return StartTask(caller=caller, parts=parts, **stored)
