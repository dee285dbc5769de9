"""The ids of commands, as the Journal has them in memory: each is known for a day at least, and the newest
with their first answers."""

import hashlib
import time
from array import array
from bisect import bisect_left, insort
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from device_agent.clock import EARLIEST_TRUE_MS

# Of one caller, with their answers; of older ones a digest is left.
COMMANDS_MAX = 5000
# Ids with answers of all callers together, in memory and on the disk.
TOTAL_MAX_BYTES = 4_000_000
# Ids of a day, of all callers together. None may use more than are free, so whoever uses up his own (two in a
# second, day and night) leaves others as many.
IDS_MAX = 400_000
# How long an id is taken.
KEEP_S = 86_400.0
HOUR_S = 3600.0
# Between two looks for ids whose day is over.
LOOK_S = 60.0
# What a row costs beside its texts.
ROW_BYTES = 200

# As `KnownCommands` does it: who has fewer bytes than the others keeps all answers.
_NO_ROOM = f"""
WITH cost AS (SELECT rowid AS id_, caller, {ROW_BYTES} + length(CAST(id AS BLOB)) + length(what)
        + ifnull(length(ack), 0) AS bytes FROM command),
    own AS (SELECT id_, bytes, sum(bytes) OVER (PARTITION BY caller ORDER BY id_ DESC) AS so_far,
        row_number() OVER (PARTITION BY caller ORDER BY id_ DESC) AS age FROM cost),
    every AS (SELECT id_, age, sum(bytes) OVER (ORDER BY so_far, id_) AS so_far FROM own)
SELECT id_ FROM every WHERE so_far > {TOTAL_MAX_BYTES} OR age > {COMMANDS_MAX}
"""
_TOO_MANY_USED = f"DELETE FROM used WHERE rowid <= (SELECT max(rowid) FROM used) - {IDS_MAX}"
TRIM_SQL = (
    f"INSERT INTO used SELECT caller, digest(id), at_ms FROM command WHERE rowid IN ({_NO_ROOM})",
    f"DELETE FROM command WHERE rowid IN ({_NO_ROOM})",
    _TOO_MANY_USED,
)


def forget_sql(key: tuple[str, str], now_ms: int) -> list[tuple[str, tuple[Any, ...]]]:
    """What the disk does where memory keeps the answer of `key` no more: as much work whatever is there."""
    oldest = "SELECT rowid AS id_, at_ms FROM used ORDER BY rowid LIMIT 2"
    over = f"DELETE FROM used WHERE rowid IN (SELECT id_ FROM ({oldest}) WHERE at_ms BETWEEN ? AND ?)"
    return [
        ("INSERT INTO used SELECT caller, digest(id), at_ms FROM command WHERE caller = ? AND id = ?", key),
        ("DELETE FROM command WHERE caller = ? AND id = ?", key),
        (over, (EARLIEST_TRUE_MS, now_ms - round(KEEP_S * 1000))),
        (_TOO_MANY_USED, ()),
    ]


def digest(id_: str) -> int:
    """Of 64 bits, signed as SQLite has them."""
    return int.from_bytes(hashlib.blake2b(id_.encode(), digest_size=8).digest(), signed=True)


@dataclass(slots=True)
class _Caller:
    answers: OrderedDict[str, bytes | None] = field(default_factory=OrderedDict)
    since_s: dict[str, float] = field(default_factory=dict)
    size_bytes: int = 0
    used: "deque[tuple[float, array[int]]]" = field(default_factory=deque)
    """Digests of the ids without answers, in order, by the hour in which they lost them; until when they are
    kept."""

    def __len__(self) -> int:
        return len(self.answers) + sum(len(ids) for _, ids in self.used)

    def has_used(self, id_: str) -> bool:
        wanted = digest(id_)
        at = ((ids, bisect_left(ids, wanted)) for _, ids in self.used)
        return any(place < len(ids) and ids[place] == wanted for ids, place in at)

    def hour(self, now_s: float) -> "array[int]":
        """Where digests are added now."""
        if not self.used or self.used[-1][0] < now_s + KEEP_S:
            self.used.append((now_s + KEEP_S + HOUR_S, array("q")))
        return self.used[-1][1]

    def pop(self, id_: str) -> None:
        del self.since_s[id_]
        self.size_bytes -= _cost(id_, self.answers.pop(id_))

    def forget_old(self, now_s: float) -> list[str]:
        """The ids whose answers went."""
        while self.used and self.used[0][0] <= now_s:
            self.used.popleft()
        old = [id_ for id_, since_s in self.since_s.items() if now_s - since_s >= KEEP_S]
        gone = [id_ for id_ in old if self.answers[id_] is not None]
        for id_ in gone:
            self.pop(id_)
        return gone

    def until_s(self) -> float:
        """When the next id is forgotten."""
        return min(
            [until_s for until_s, _ in self.used] + [since_s + KEEP_S for since_s in self.since_s.values()]
        )


def _cost(id_: str, answer: bytes | None) -> int:
    return ROW_BYTES + len(id_.encode()) + len(answer or b"")


class KnownCommands:
    """Where there is no room for an answer, the oldest of the caller who has most make some: a caller's flood
    costs nobody else's. What is under way stays. No id is forgotten: who has used up his own has to wait.

    An id's day is counted by the clock that cannot jump, and after a start from the start: a wrong wall clock
    must not make somebody's id new again.
    """

    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._monotonic_s = monotonic_s
        self._callers: dict[str, _Caller] = {}
        self._count = 0
        self._full_until_s = 0.0
        self._forgotten: list[tuple[str, str]] = []
        self.size_bytes = 0

    def __contains__(self, key: tuple[str, str]) -> bool:
        name, id_ = key
        if (caller := self._callers.get(name)) is None:
            return False
        since_s = caller.since_s.get(id_)
        if since_s is not None:
            return self._monotonic_s() - since_s < KEEP_S
        return caller.has_used(id_)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Those with answers, or under way."""
        return ((name, id_) for name, caller in self._callers.items() for id_ in caller.answers)

    def answer(self, key: tuple[str, str]) -> bytes | None:
        """The first answer, msgpack; None where there is none yet, empty where it is kept no more."""
        return self._callers[key[0]].answers.get(key[1], b"")

    def full_s(self, name: str) -> float:
        """For how long no more ids of this caller are remembered; 0 while there is room."""
        if self._has_room(name):
            return 0.0
        now_s = self._monotonic_s()
        if now_s >= self._full_until_s:
            for caller, each in self._callers.items():
                self._forgotten += [(caller, id_) for id_ in each.forget_old(now_s)]
            self._callers = {name: each for name, each in self._callers.items() if len(each)}
            self.size_bytes = sum(each.size_bytes for each in self._callers.values())
            self._count = sum(map(len, self._callers.values()))
            due_s = min((each.until_s() for each in self._callers.values()), default=now_s)
            self._full_until_s = max(due_s, now_s + LOOK_S)
        return 0.0 if self._has_room(name) else self._full_until_s - now_s

    def _has_room(self, name: str) -> bool:
        caller = self._callers.get(name)
        return (0 if caller is None else len(caller)) < IDS_MAX - self._count

    def put_used(self, used: Iterable[tuple[str, int]]) -> None:
        """Ids that an earlier process knew without their answers: callers, and digests in order."""
        now_s = self._monotonic_s()
        for name, of_id in used:
            self._callers.setdefault(name, _Caller()).hour(now_s).append(of_id)
            self._count += 1

    def put(self, key: tuple[str, str], answer: bytes | None) -> None:
        """An id is known, and perhaps its answer."""
        name, id_ = key
        caller = self._callers.setdefault(name, _Caller())
        before = caller.size_bytes
        if id_ in caller.answers:
            caller.pop(id_)
        else:
            self._count += 1
        caller.answers[id_] = answer
        caller.since_s[id_] = self._monotonic_s()
        caller.size_bytes += _cost(id_, answer)
        self.size_bytes += caller.size_bytes - before
        if len(caller.answers) > COMMANDS_MAX:
            self._forget_answer(name)
        while self.size_bytes > TOTAL_MAX_BYTES and self._forget_answer(self._largest()):
            pass

    def take_forgotten(self) -> list[tuple[str, str]]:
        """Those whose answers went since this was asked last."""
        forgotten, self._forgotten = self._forgotten, []
        return forgotten

    def _largest(self) -> str:
        return max(self._callers, key=lambda name: self._callers[name].size_bytes)

    def _forget_answer(self, name: str) -> bool:
        """The oldest; False if there is none."""
        caller = self._callers[name]
        answers = caller.answers
        oldest: Any = next((id_ for id_, answer in answers.items() if answer is not None), None)
        if oldest is None:
            return False
        before = caller.size_bytes
        caller.pop(oldest)
        insort(caller.hour(self._monotonic_s()), digest(oldest))
        self.size_bytes += caller.size_bytes - before
        self._forgotten.append((name, oldest))
        return True
