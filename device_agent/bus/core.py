"""One shared medium with one owner: the handle that drivers see, and the thread that alone uses it.

Leaving the event loop has one door, `Bus.run`. A job whose caller has left before it began never runs; a job
that outlives its limit faults the bus until its thread returns.
"""

import asyncio
import itertools
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import IntEnum, StrEnum
from types import GeneratorType
from typing import Any, ClassVar, Protocol, TypeVar

from device_agent.bus.recipe import Recipe, Steps
from device_agent.errors import BusBusy, BusError, BusFaulted, BusGone, BusTimeout

T = TypeVar("T")
# A function, or one that yields between steps: what is more urgent goes there.
Call = Callable[[], T] | Callable[[], Generator[None, None, T]]

# Opening may wait for a USB port to enumerate or a broker to answer; closing is a system call.
OPEN_LIMIT_S = 10.0
CLOSE_LIMIT_S = 2.0
# Jobs that wait for one bus. Devices have one job each under way, commands one a device: 64 is never reached
# unless something is wrong, and then refusing is right. What is urgent has as many places of its own.
JOBS_MAX = 64
# Users lost in a row to a failure of the bus itself, with nothing that worked in between.
FAILURES_MAX = 3
# All steps of one call together while others wait, what came in between left out: less than these wait.
STEPS_LIMIT_S = 20.0
# So often a command begins a reading of its own device anew; after it, only what makes safe does.
RESTARTS_MAX = 3

_here = threading.local()


def give_way() -> None:
    """Called by a handle before each transaction: what waits and is more urgent is carried out now.

    A handle calls it where nothing of its own transaction is under way; on other threads it does nothing.
    """
    bus: Bus | None = getattr(_here, "bus", None)
    if bus is not None:
        bus.carry_out_more_urgent(at_step=False)


class _BeginAnew(BaseException):
    """Ends a reading between two of its transactions. No Exception, which a driver may catch and go on."""


class Source(Protocol):
    """Something that becomes readable: the event loop watches `fileno` and calls `drain`."""

    def fileno(self) -> int:
        """A descriptor that polls readable while chunks wait."""

    def drain(self) -> Sequence[Any]:
        """All chunks that wait, without blocking. Raises BusGone when the medium has disappeared."""

    def close(self) -> None:
        """Stop listening; may be called twice."""


class Handle:
    """What a driver sees of a bus; used only on the bus's thread. Subclasses are one kind of medium each."""

    kind: ClassVar[str] = ""

    def open(self) -> None:
        """Take the medium. Raises BusGone (not there), BusHeld, BusDenied."""

    def close(self) -> None:
        """Give it back; safe to call twice and after a failed `open`."""

    def detach(self) -> None:
        """Take the kernel's driver off the hardware; only while closed. Raises BusDenied, BusError."""
        raise BusError(f"a bus of kind {self.kind!r} has no driver of the kernel to take off")

    def attach(self) -> None:
        """Put the kernel's driver back. Raises as `detach`."""
        raise BusError(f"a bus of kind {self.kind!r} has no driver of the kernel to put back")

    def listen(self) -> Source:
        """Everything that arrives on the medium, where it is one stream."""
        raise BusError(f"a bus of kind {self.kind!r} has nothing to listen to as a whole")

    def recipe(self, steps: Steps) -> Recipe:
        """How the guard writes the same without the daemon. Raises BusError where it cannot."""
        raise BusError(f"the guard cannot use this bus of kind {self.kind!r}")


class NoBus(Handle):
    """The bus of a driver that needs none, such as `host`. `simulated`: nothing real is to be touched."""

    kind = "none"

    def __init__(self, *, simulated: bool = False) -> None:
        self.simulated = simulated


class BusState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    FAULTED = "faulted"


class Urgency(IntEnum):
    """Which of the jobs that wait is next; within one, first come, first served."""

    SAFE = 0
    COMMAND = 1
    ROUTINE = 2
    END = 3
    """The end of the thread, after everything that waits."""


class _Job:
    """One call on its way to the bus thread. `begin` and `abandon` race; exactly one of them wins."""

    __slots__ = (
        "_lock",
        "_state",
        "begun_s",
        "fn",
        "future",
        "interrupted",
        "loop",
        "over",
        "restarting",
        "restarts",
        "urgency",
        "user",
    )

    def __init__(
        self,
        fn: Callable[[], Any],
        urgency: Urgency,
        user: str,
        loop: asyncio.AbstractEventLoop,
        *,
        restarts: bool,
    ) -> None:
        self.fn = fn
        self.urgency = urgency
        self.user = user
        self.loop = loop
        self.restarts = 0 if restarts else -1
        """How often it has begun anew; -1 where it may not."""
        self.restarting = False
        """What its driver still does then, to leave the chip in order, is not interrupted."""
        self.interrupted = False
        """While more urgent jobs are carried out: its own limit stands still."""
        self.future: asyncio.Future[Any] = loop.create_future()
        self._lock = threading.Lock()
        self._state = "waiting"
        self.begun_s: float | None = None
        self.over = False

    def begin(self) -> bool:
        with self._lock:
            if self._state == "abandoned":
                return False
            self._state = "begun"
            self.begun_s = time.monotonic()
            return True

    @property
    def abandoned(self) -> bool:
        """Whether its caller has left, while it waited or after it had begun."""
        return self.future.done()

    def left_s(self, timeout_s: float) -> float:
        """What its present step has left of `timeout_s`."""
        if self.interrupted or self.begun_s is None:
            return timeout_s
        return self.begun_s + timeout_s - time.monotonic()

    def abandon(self) -> bool:
        """True if the job had begun, so that it may have happened."""
        with self._lock:
            begun = self._state == "begun"
            if not begun:
                self._state = "abandoned"
            return begun


class Bus:
    """Owner of one handle. States: closed → open → faulted → open. All methods belong to the event loop."""

    def __init__(self, name: str, handle: Handle, timeout_s: float = 2.0) -> None:
        """`timeout_s` bounds one call of a driver."""
        self.name = name
        self.handle = handle
        self.timeout_s = timeout_s
        self.state = BusState.CLOSED
        self.faults = 0
        self.last_error = ""
        self.retries = 0
        """Calls that were repeated at once, and of these the ones that worked then."""
        self.retries_helped = 0
        self._users: list[str] = []
        self._failures = 0
        self._failed: set[str] = set()
        """Users lost to a failure of the bus itself since something worked."""
        self._proven = False
        self._trouble: BaseException | None = None
        self._jobs: queue.PriorityQueue[tuple[Urgency, int, _Job | None]] = queue.PriorityQueue()
        self._numbers = itertools.count()
        self._waiting = 0
        self._under_way: list[_Job] = []
        """Of the bus's thread: a call, what interrupted it, and so on; without those between two steps."""
        self._stuck: _Job | None = None
        self._thread: threading.Thread | None = None
        self._changed = asyncio.Event()
        self._hurry = asyncio.Event()

    def __repr__(self) -> str:
        stuck = ", stuck" if self.stuck else ""
        return f"<Bus {self.name} {self.state}{stuck}, {len(self._users)} users, {self._waiting} jobs>"

    # -- open and closed ----------------------------------------

    async def open(self) -> None:
        """Take the medium. Raises BusError, or ImportError for an optional library that is missing."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=f"bus-{self.name}", daemon=True)
            self._thread.start()
        try:
            await self._submit(self.handle.open, OPEN_LIMIT_S)
        except (BusError, ImportError) as error:
            self.last_error = str(error)
            raise
        self._proven, self._trouble = False, None
        self._enter(BusState.OPEN)

    async def close(self) -> None:
        """Give the medium back and leave the faulted state behind. Never raises for a dead medium."""
        self._enter(BusState.CLOSED)
        try:
            await self._submit(self.handle.close, CLOSE_LIMIT_S)
        except BusError as error:
            self.last_error = str(error)

    def stop(self) -> None:
        """End the thread after the job under way; it is a daemon, so a stuck one cannot hold the process."""
        self._jobs.put((Urgency.END, next(self._numbers), None))
        self._thread = None

    def fault(self, error: BaseException) -> None:
        """The medium is not usable any more: all users end, and the owner reopens it."""
        if self.state is BusState.OPEN:
            self.faults += 1
            self.last_error = str(error)
            self._trouble = error
            self._enter(BusState.FAULTED)

    def note_success(self) -> None:
        """Something on the bus has just worked."""
        self._failures = 0
        self._failed.clear()
        if not self._proven:
            self._proven = True
            self._signal()

    def note_retry(self, *, helped: bool) -> None:
        """A call was repeated at once, or (`helped`) worked when it was repeated."""
        self.retries += not helped
        self.retries_helped += helped

    def note_failure(self, user: str, error: BaseException) -> None:
        """A user failed with this error, which may be the bus's own: then the bus is faulted, at once if the
        medium is gone, otherwise when all users fail. Idle ones are to try (`until_doubted`)."""
        if isinstance(error, BusGone):
            self.fault(error)
        elif (
            isinstance(error, BusError)
            and (isinstance(error, BusTimeout) or error.reason == "bus_fault")
            and not isinstance(error, (BusBusy, BusFaulted))
            and self._stuck is None
        ):
            self._failures += 1
            self._failed.add(user)
            if self._failures < FAILURES_MAX:
                return
            if self._failed.issuperset(self._users):
                self._failures = 0
                self._failed.clear()
                self.fault(BusFaulted(f"nothing works on bus {self.name} any more: {error}"))
            else:
                self._signal()

    def loss(self) -> BusError:
        """Why the bus is not open, for those who used it."""
        text = f"bus {self.name}: {self.last_error or 'closed'}"
        return BusFaulted(text) if isinstance(self._trouble, BusFaulted) else BusGone(text)

    @property
    def proven(self) -> bool:
        """Whether anything on the bus worked since it was opened."""
        return self._proven

    @property
    def waiting(self) -> int:
        """Jobs that wait or are under way, at most `JOBS_MAX`."""
        return self._waiting

    async def until(self, *states: BusState) -> BusState:
        """Wait for one of the states. No limit of its own: the caller owns the wait."""
        while self.state not in states:
            await self._changed.wait()
        return self.state

    async def until_not_open(self) -> None:
        """Wait until the medium is lost or given back. No limit of its own: the caller owns the wait."""
        await self.until(BusState.FAULTED, BusState.CLOSED)

    async def until_proven(self) -> None:
        """Wait until something works. No limit of its own: the caller owns the wait."""
        while not self._proven:
            await self._changed.wait()

    async def until_stuck(self, stuck: bool) -> None:
        """Wait until the thread hangs, or no more does. No limit of its own: the caller owns the wait."""
        while self.stuck is not stuck:
            await self._changed.wait()

    async def until_doubted(self, user: str) -> None:
        """Wait until others have failed so often that it matters whether the bus works for this user."""
        while self._failures < FAILURES_MAX or user in self._failed:
            await self._changed.wait()

    def hurry(self) -> None:
        """An actuator has to be made safe: the next try to open the bus comes without back-off."""
        self._hurry.set()

    async def until_hurried(self) -> None:
        """Wait for `hurry`. No limit of its own: the caller owns the wait."""
        await self._hurry.wait()
        self._hurry.clear()

    @contextmanager
    def in_use(self, user: str) -> Iterator[None]:
        """For a user, until it has closed what it took: after a loss the medium is closed after the last."""
        self._users.append(user)
        try:
            yield
        finally:
            self._users.remove(user)
            self._signal()

    async def until_unused(self, limit_s: float) -> None:
        """Wait for the end of all uses, at most `limit_s`: a stuck user must not keep the others out."""
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while self._users:
                    await self._changed.wait()

    def _signal(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _enter(self, state: BusState) -> None:
        if state is not self.state:
            self.state = state
            self._signal()

    # -- jobs ----------------------------------------

    @property
    def stuck(self) -> bool:
        """Whether the thread is inside a job that outlived its limit."""
        return self._stuck is not None

    async def run(
        self,
        fn: Call[T],
        timeout_s: float,
        *,
        queue_s: float | None = None,
        urgency: Urgency = Urgency.ROUTINE,
        user: str = "",
        restarts: bool = False,
    ) -> T:
        """Run `fn` on the bus's thread for `timeout_s` at most, after `queue_s` at most (or `timeout_s`).

        Between two transactions, what is more urgent and of another user is carried out. Where `fn` is a
        generator function, each of its steps has `timeout_s`, all together have `STEPS_LIMIT_S`, and between
        two steps what is more urgent and of the same user is carried out, too. One that `restarts` ends
        between two transactions for such, and begins anew after it.

        Raises at once BusGone while the medium is away, BusFaulted while the bus is otherwise not open or its
        thread is stuck; BusBusy if the job did not begin (and never will), BusTimeout if it began and did
        not end in time: it may have happened.
        """
        if self.state is not BusState.OPEN:
            if self._trouble is not None:
                raise self.loss()
            raise BusFaulted(f"bus {self.name} is {self.state}: {self.last_error or 'not opened yet'}")
        return await self._submit(fn, timeout_s, queue_s, urgency, user, restarts=restarts)

    async def run_anyway(self, fn: Callable[[], T], timeout_s: float) -> T:
        """As `run`, whatever the state: to close what was opened on a medium that is gone."""
        return await self._submit(fn, timeout_s)

    async def _submit(
        self,
        fn: Call[T],
        timeout_s: float,
        queue_s: float | None = None,
        urgency: Urgency = Urgency.ROUTINE,
        user: str = "",
        *,
        restarts: bool = False,
    ) -> T:
        queue_s = timeout_s if queue_s is None else queue_s
        if self._stuck is not None:
            raise BusFaulted(f"bus {self.name} is stuck in a call that did not return in time")
        if self._waiting >= (JOBS_MAX if urgency is Urgency.ROUTINE else 2 * JOBS_MAX):
            raise BusBusy(f"bus {self.name}: {self._waiting} jobs wait already")
        job = _Job(fn, urgency, user, asyncio.get_running_loop(), restarts=restarts)
        self._jobs.put((urgency, next(self._numbers), job))
        self._waiting += 1
        try:
            if await self._ended(job, timeout_s, queue_s):
                return job.future.result()  # type: ignore[no-any-return]
            if not job.abandon():
                raise BusBusy(f"bus {self.name}: occupied for {queue_s:g} s, the job did not begin")
            self._mark_stuck(job, timeout_s)
            raise BusTimeout(f"bus {self.name}: {self._too_long(timeout_s)}")
        except asyncio.CancelledError:
            if job.abandon():
                self._watch_abandoned(job, timeout_s)
            raise
        finally:
            self._waiting -= 1
            job.future.cancel()  # nobody will ask for it any more

    def _watch_abandoned(self, job: _Job, timeout_s: float) -> None:
        """A call goes on, and has its limit although nobody waits for it any more."""
        left_s = job.left_s(timeout_s)
        if job.over or left_s <= 0:
            self._mark_stuck(job, timeout_s)
        else:
            job.loop.call_later(left_s, self._watch_abandoned, job, timeout_s)

    def _mark_stuck(self, job: _Job, timeout_s: float) -> None:
        """A call has outlived its limit, unless it ended meanwhile."""
        if job.over or self._stuck is not None:
            return
        self._stuck = job
        self._proven = False
        self.faults += 1
        self.last_error = self._too_long(timeout_s)
        self._signal()

    def _too_long(self, timeout_s: float) -> str:
        whose = "`timeout_s` of the bus" if timeout_s == self.timeout_s else "what the device's options need"
        return f"a call took longer than {timeout_s:g} s ({whose})"

    async def _ended(self, job: _Job, timeout_s: float, queue_s: float) -> bool:
        """Whether the job ended in time. False: it has lasted `timeout_s`, or never began and never will.

        Time in the queue does not count: the job has `timeout_s` for itself.
        """
        give_up_s = time.monotonic() + queue_s
        left_s = min(timeout_s, queue_s)
        while True:
            await asyncio.wait((job.future,), timeout=left_s)
            now_s = time.monotonic()
            if job.future.done():
                return True
            given_up = now_s >= give_up_s or self._stuck is not None
            if given_up and not job.abandon():
                return False
            left_s = job.left_s(timeout_s)
            if job.begun_s is None:
                left_s = min(left_s, give_up_s - now_s)
            elif left_s <= 0:
                return False

    def _work(self) -> None:
        _here.bus = self
        try:
            while (job := self._jobs.get()[-1]) is not None:
                self._carry_out(job)
        except RuntimeError:
            return  # the loop is closed: the process ends

    def _carry_out(self, job: _Job) -> None:
        """Raises RuntimeError if the event loop is closed."""
        if not job.begin():
            return
        result: Any = None
        error: BaseException | None = None
        self._under_way.append(job)
        try:
            result = self._result(job)
        except Exception as caught:  # noqa: BLE001 - the thread's loop; the error goes to the caller
            error = caught
        finally:
            self._under_way.pop()
        job.loop.call_soon_threadsafe(self._finish, job, result, error)

    def _result(self, job: _Job) -> Any:
        while not job.abandoned:
            try:
                result = job.fn()
                return self._in_steps(job, result) if isinstance(result, GeneratorType) else result
            except _BeginAnew:
                job.restarting = False
                self.carry_out_more_urgent(at_step=True)
        return None

    def _in_steps(self, job: _Job, steps: Generator[None, None, Any]) -> Any:
        spent_s = 0.0
        while not job.abandoned:
            job.begun_s = time.monotonic()
            try:
                next(steps)
            except StopIteration as end:
                return end.value
            if self._waiting > 1:
                spent_s += time.monotonic() - job.begun_s
            if spent_s > STEPS_LIMIT_S:
                steps.close()
                raise BusTimeout(
                    f"bus {self.name}: a call of more than {STEPS_LIMIT_S:g} s keeps others waiting; "
                    "configure fewer points or a faster line"
                )
            self.carry_out_more_urgent(at_step=True)
        steps.close()
        return None

    def carry_out_more_urgent(self, *, at_step: bool) -> None:
        """On the bus's thread, inside a call: what waits and is more urgent goes first.

        Nothing of a user whose call is under way, unless `at_step`: its driver can do with that there.
        """
        if not self._under_way:
            return
        job = self._under_way[-1]
        since_s = time.monotonic()
        job.interrupted = True
        if at_step:
            self._under_way.pop()
        try:
            while (more_urgent := self._next_before(job.urgency)) is not None:
                self._carry_out(more_urgent)
        finally:
            if at_step:
                self._under_way.append(job)
            assert job.begun_s is not None
            job.begun_s += time.monotonic() - since_s
            job.interrupted = False
        if not at_step and self._makes_way(job):
            job.restarts += 1
            job.restarting = True
            raise _BeginAnew

    def _makes_way(self, job: _Job) -> bool:
        """Whether a reading is to begin anew, after what is more urgent and of its own user."""
        if job.restarts < 0 or job.restarting:
            return False
        limit = job.urgency if job.restarts < RESTARTS_MAX else Urgency.COMMAND
        with self._jobs.mutex:
            return any(
                urgency < limit and one is not None and one.user == job.user
                for urgency, _, one in self._jobs.queue
            )

    def _next_before(self, urgency: Urgency) -> _Job | None:
        """What waits, is more urgent and may begin, taken out of the queue."""
        busy = {job.user for job in self._under_way}
        passed: list[tuple[Urgency, int, _Job | None]] = []
        found = None
        with suppress(queue.Empty):
            while found is None:
                passed.append(self._jobs.get_nowait())
                first, _, job = passed[-1]
                if first >= urgency:
                    break
                if job is not None and job.user not in busy:
                    found = job
                    passed.pop()
        for entry in passed:
            self._jobs.put(entry)
        return found

    def _finish(self, job: _Job, result: Any, error: BaseException | None) -> None:
        job.over = True
        if self._stuck is job:
            self._stuck = None
            self._signal()
        if job.future.done():
            return
        if error is not None:
            job.future.set_exception(error)
        else:
            job.future.set_result(result)
