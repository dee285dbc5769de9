"""The one thread that touches the stores on disk."""

import asyncio
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

T = TypeVar("T")

# A card that takes longer than this for one commit is as good as dead; the caller decides what that means.
STORE_LIMIT_S = 30.0


def written_bytes(who: Literal["thread-self", "self"] = "thread-self") -> int:
    """What the calling thread, or the process, has caused to be written to disks; 0 if nobody counts."""
    try:
        told = Path(f"/proc/{who}/io").read_bytes()
    except OSError:
        return 0
    _, _, rest = told.partition(b"\nwrite_bytes: ")
    return int(rest.split(b"\n", 1)[0] or 0)


class StoreThread:
    """Runs jobs in order. A job is never dropped: what was handed over is written."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Any, Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="store", daemon=True)
        self._thread.start()

    async def run(self, fn: Callable[[], T], limit_s: float | None = STORE_LIMIT_S) -> T:
        """Run `fn` on the store thread. Raises TimeoutError after `limit_s`; the job still runs.

        None waits as long as it takes, for who must know whether it was done and holds no one up meanwhile.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.put((fn, loop, future))
        async with asyncio.timeout(limit_s):
            return await future

    def later(self, fn: Callable[[], Any]) -> None:
        """Run `fn` some time; its failure is the job's own affair."""
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
            except Exception as caught:  # noqa: BLE001 - the thread's life; the error goes to whoever asked
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
