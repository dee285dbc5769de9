"""Long-running coroutines with an owner, and the small things that they all need: waits and back-off.

`BackgroundTasks` is one of the few places that catch everything: it owns a task, logs the traceback once and
goes on.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog

log = structlog.get_logger("background")

# A task that fails at once is started again this late at most, so that a bug costs a log line a minute.
# One that has run for as long begins with a clean sheet: a few failures in three years do not add up.
RESTART_FIRST_S = 0.5
RESTART_MAX_S = 60.0
# Cancellation is a request; a task that does not end within this is reported and left behind.
END_LIMIT_S = 5.0
# Long work gives others their turn after this. In a turn the interpreter's lock is free for an instant: a
# thread that waits for it wakes, comes too late and begins its wait anew. Given after each message of a
# flood, turns kept the store thread from its work for 0.4 s.
TURN_AFTER_S = 0.002


class Backoff:
    """How long to wait after each failure in a row: `first_s`, doubled each time up to `most_s`.

    `jitter` is the share of the wait that chance may take away, 0 to 1: devices behind one failed router are
    not to come back at the same instant.
    """

    def __init__(
        self, first_s: float, most_s: float, *, jitter: float = 0.5, rng: random.Random | None = None
    ) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._jitter = jitter
        self._rng = rng or random.Random()
        self._failures = 0

    def __repr__(self) -> str:
        return f"<Backoff after {self._failures} failures, {self._first_s:g} to {self._most_s:g} s>"

    def reset(self) -> None:
        """It works: the next failure is the first one again."""
        self._failures = 0

    def next_s(self, most_s: float | None = None) -> float:
        """Seconds to wait after one more failure; `most_s` may bound this one differently."""
        whole_s = self._first_s * 2.0 ** min(self._failures, 30)
        self._failures += 1
        return min(most_s or self._most_s, whole_s) * (1.0 - self._jitter * self._rng.random())


async def first_of(
    *waits: Awaitable[Any], limit_s: float | None = None
) -> list["asyncio.Future[Any] | None"]:
    """Wait until the first of these has ended, for `limit_s` at most.

    Returns one entry for each: its future where it has ended, else None. Nothing of theirs is raised:
    `result()` does that. Coroutines are cancelled and have ended then; a future belongs to who passed it.
    """
    futures = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(futures, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        return [future if future.done() else None for future in futures]
    finally:
        begun = [f for f, wait in zip(futures, waits, strict=True) if f is not wait and not f.done()]
        for future in begun:
            future.cancel()
        if begun:
            await asyncio.wait(begun, timeout=END_LIMIT_S)


class Turns:
    """Gives the other tasks of the event loop their turn within long work, and not too often."""

    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._monotonic_s = monotonic_s
        self._since_s = monotonic_s()

    async def give(self) -> None:
        """Between two pieces of the work."""
        if self._monotonic_s() - self._since_s >= TURN_AFTER_S:
            await asyncio.sleep(0)
            self._since_s = self._monotonic_s()


class BackgroundTasks:
    """A set of named asyncio tasks. `close` ends them all."""

    def __init__(self, owner: str, *, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._owner = owner
        self._monotonic_s = monotonic_s
        self._tasks: set[asyncio.Task[Any]] = set()
        self.failures: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._tasks)

    def __repr__(self) -> str:
        return f"<BackgroundTasks of {self._owner}: {len(self)} running>"

    def spawn(self, name: str, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run to its end once; a failure is logged and counted under the first word of its name."""
        task = asyncio.create_task(self._once(name, coroutine), name=f"{self._owner}.{name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def run_forever(self, name: str, work: Callable[[], Awaitable[Any]]) -> asyncio.Task[Any]:
        """Start it again, later each time, whenever it fails; ends when it returns."""
        return self.spawn(name, self._again(name, work))

    async def _once(self, name: str, coroutine: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await coroutine
        except Exception:
            self._count(name)
            log.exception("task_failed", owner=self._owner, task=name)

    async def _again(self, name: str, work: Callable[[], Awaitable[Any]]) -> None:
        backoff = Backoff(RESTART_FIRST_S, RESTART_MAX_S, jitter=0.0)
        while True:
            began_s = self._monotonic_s()
            try:
                await work()
                return
            except Exception:
                if self._monotonic_s() - began_s >= RESTART_MAX_S:
                    backoff.reset()
                delay_s = backoff.next_s()
                self._count(name)
                log.exception("task_failed", owner=self._owner, task=name, again_in_s=delay_s)
            await asyncio.sleep(delay_s)

    def _count(self, name: str) -> None:
        self.failures[name.split(" ")[0]] += 1

    async def close(self) -> None:
        """Cancel all and wait for their ends."""
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=END_LIMIT_S)
            for task in late:
                log.error("task_did_not_end", owner=self._owner, task=task.get_name())
