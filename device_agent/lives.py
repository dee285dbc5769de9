"""Owners of long-lived coroutines: each has a name, is kept, restarted by rule, counted, and ended.

This is one of the few places that catch everything: it owns a life, logs the traceback once and goes on.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog

log = structlog.get_logger("lives")

# A life that fails at once is started again this late at most, so that a bug costs a log line a minute.
# What has lived for as long begins with a clean sheet: a few failures in three years are not held against it.
RESTART_FIRST_S = 0.5
RESTART_MAX_S = 60.0
# Cancellation is a request; a life that does not end within this is reported and left behind.
END_LIMIT_S = 5.0


class Lives:
    """A set of named asyncio tasks. `close` ends them all."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._tasks: set[asyncio.Task[Any]] = set()
        self.failures: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, name: str, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run to its end once; a failure is logged and counted under the first word of its name."""
        task = asyncio.create_task(self._guard(name, coroutine), name=f"{self._owner}.{name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def keep(self, name: str, life: Callable[[], Awaitable[Any]]) -> asyncio.Task[Any]:
        """Run for ever: started again, later each time, whenever it fails; ends when it returns."""
        return self.spawn(name, self._again(name, life))

    async def _guard(self, name: str, coroutine: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await coroutine
        except Exception:
            self.failures[name.split(" ")[0]] += 1
            log.exception("life_failed", owner=self._owner, life=name)

    async def _again(self, name: str, life: Callable[[], Awaitable[Any]]) -> None:
        delay_s, clock = RESTART_FIRST_S, asyncio.get_running_loop()
        while True:
            began_s = clock.time()
            try:
                await life()
                return
            except Exception:
                if clock.time() - began_s >= RESTART_MAX_S:
                    delay_s = RESTART_FIRST_S
                self.failures[name.split(" ")[0]] += 1
                log.exception("life_failed", owner=self._owner, life=name, again_in_s=delay_s)
            await asyncio.sleep(delay_s)
            delay_s = min(RESTART_MAX_S, delay_s * 2)

    async def close(self) -> None:
        """Cancel all and wait for their ends."""
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=END_LIMIT_S)
            for task in late:
                log.error("life_did_not_end", owner=self._owner, life=task.get_name())
