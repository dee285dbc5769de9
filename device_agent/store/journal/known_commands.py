"""The ids of commands, with their first answers, as the Journal has them in memory: bounded in bytes."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

# The newest of one caller.
COMMANDS_MAX = 5000
# Of all callers together, in memory and on the disk.
TOTAL_MAX_BYTES = 4_000_000
# How long an id is taken.
KEEP_S = 86_400.0
# What a row costs beside its texts.
ROW_BYTES = 200

# As `KnownCommands` does it: who has fewer bytes than the others keeps all of them.
TRIM_SQL = f"""
WITH cost AS (SELECT rowid AS id_, caller, {ROW_BYTES} + length(CAST(id AS BLOB)) + length(what)
        + ifnull(length(ack), 0) AS bytes FROM command),
    own AS (SELECT id_, bytes, sum(bytes) OVER (PARTITION BY caller ORDER BY id_ DESC) AS so_far FROM cost),
    every AS (SELECT id_, sum(bytes) OVER (ORDER BY so_far, id_) AS so_far FROM own)
DELETE FROM command WHERE rowid IN (SELECT id_ FROM every WHERE so_far > {TOTAL_MAX_BYTES})
"""


@dataclass(slots=True)
class _Caller:
    answers: OrderedDict[str, bytes | None] = field(default_factory=OrderedDict)
    since_s: dict[str, float] = field(default_factory=dict)
    size_bytes: int = 0

    def pop(self, id_: str) -> None:
        del self.since_s[id_]
        self.size_bytes -= _cost(id_, self.answers.pop(id_))


def _cost(id_: str, answer: bytes | None) -> int:
    return ROW_BYTES + len(id_.encode()) + len(answer or b"")


class KnownCommands:
    """Where there is no room, the oldest of the caller who has most make some: a caller's flood forgets its
    own ids and nobody else's. What is under way stays.

    An id's day is counted by the clock that cannot jump, and after a start from the start: a wrong wall clock
    must not make somebody's id new again.
    """

    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._monotonic_s = monotonic_s
        self._callers: dict[str, _Caller] = {}
        self.size_bytes = 0

    def __contains__(self, key: tuple[str, str]) -> bool:
        caller = self._callers.get(key[0])
        since_s = None if caller is None else caller.since_s.get(key[1])
        return since_s is not None and self._monotonic_s() - since_s < KEEP_S

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return ((name, id_) for name, caller in self._callers.items() for id_ in caller.answers)

    def answer(self, key: tuple[str, str]) -> bytes | None:
        """The first answer, msgpack; None where there is none yet. Raises KeyError."""
        return self._callers[key[0]].answers[key[1]]

    def put(self, key: tuple[str, str], answer: bytes | None) -> None:
        """An id is known, and perhaps its answer."""
        name, id_ = key
        caller = self._callers.setdefault(name, _Caller())
        before = caller.size_bytes
        if id_ in caller.answers:
            caller.pop(id_)
        caller.answers[id_] = answer
        caller.since_s[id_] = self._monotonic_s()
        caller.size_bytes += _cost(id_, answer)
        self.size_bytes += caller.size_bytes - before
        if len(caller.answers) > COMMANDS_MAX:
            self._forget_one(caller)
        while self.size_bytes > TOTAL_MAX_BYTES and self._forget_one(self._largest()):
            pass

    def _largest(self) -> _Caller:
        return max(self._callers.values(), key=lambda caller: caller.size_bytes)

    def _forget_one(self, caller: _Caller) -> bool:
        """The oldest that has its answer; False if there is none."""
        answers = caller.answers
        oldest: Any = next((id_ for id_, answer in answers.items() if answer is not None), None)
        if oldest is None:
            return False
        before = caller.size_bytes
        caller.pop(oldest)
        self.size_bytes += caller.size_bytes - before
        return True
