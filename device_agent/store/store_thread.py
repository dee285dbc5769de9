"""Threads that read and write the stores on disk: one for the Journal, one for all else."""

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, Literal, TypeVar

T = TypeVar("T")

HOUR_S, DAY_S = 3600, 86_400

# A card that takes longer than this for one commit is broken; the caller decides what to do.
STORE_LIMIT_S = 30.0


def written_bytes(who: Literal["thread-self", "self"] = "thread-self") -> int:
    """Bytes that the calling thread, or the process, has written to disks, as the kernel counts them."""
    try:
        # Unbuffered: a thread that the interpreter keeps waiting waits at each call of the kernel.
        with open(f"/proc/{who}/io", "rb", buffering=0) as file:
            counters = file.read(4096)
    except OSError:
        return 0
    _, _, rest = counters.partition(b"\nwrite_bytes: ")
    return int(rest.split(b"\n", 1)[0] or 0)


def a_day(some_bytes: int, in_s: float) -> int:
    """At the rate of these seconds; less than an hour counts as one, to bound the first figures."""
    return round(some_bytes * DAY_S / max(HOUR_S, in_s))


class StoreThread:
    """Runs jobs in order. No job is dropped, also when its caller has stopped waiting."""

    def __init__(self, name: str = "store") -> None:
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Any, Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    async def run(self, fn: Callable[[], T], limit_s: float | None = STORE_LIMIT_S) -> T:
        """Run `fn` on the store thread and return its result, or raise what it raises.

        Raises TimeoutError after `limit_s` seconds, and the job still runs; None waits without a limit.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.put((fn, loop, future))
        async with asyncio.timeout(limit_s):
            return await future

    def later(self, fn: Callable[[], Any]) -> None:
        """Run `fn` after the jobs before it, without waiting; what it raises is dropped."""
        self._jobs.put((fn, None, None))

    async def close(self) -> None:
        """Finish what is queued, then end the thread."""
        await self.run(lambda: None)
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            fn, loop, future = job
            result: Any = None
            error: BaseException | None = None
            try:
                result = fn()
            except Exception as caught:  # noqa: BLE001 - the thread goes on; the error goes to the caller
                error = caught
            if loop is not None:
                try:
                    loop.call_soon_threadsafe(_settle, future, result, error)
                except RuntimeError:
                    return  # the loop is closed: the process ends


def _settle(future: "asyncio.Future[Any]", result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
