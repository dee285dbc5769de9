"""What all simulated buses share: chips, faults, listeners, the record, timers, entry checks."""

import heapq
import itertools
import json
import os
import random
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TextIO

from device_agent.driver import Driver, DriverConfig
from device_agent.errors import BusGone, BusTimeout
from device_agent.testing.chips import Chip, Physical

if TYPE_CHECKING:
    from device_agent.testing.board.core import Board


KINDS: dict[str, tuple[str, ...]] = {
    "i2c": ("unplug", "replug", "nack", "stuck", "slow", "noise", "frozen", "corrupt"),
    "gpio": ("unplug", "replug", "stuck", "slow", "noise", "frozen"),
    "serial": ("unplug", "replug", "nack", "stuck", "slow", "noise", "frozen", "corrupt"),
    "mqtt": ("unplug", "replug", "stuck", "slow", "noise", "frozen", "corrupt"),
    "spi": ("unplug", "replug", "nack", "stuck", "slow", "noise", "frozen", "corrupt"),
    "w1": ("unplug", "replug", "nack", "stuck", "slow", "noise", "frozen", "corrupt"),
}
"""Which kinds each bus knows. On a serial port `nack` is silence: what the far end says never arrives. On SPI
nobody drives the input, which reads as ones; on 1-Wire the kernel's file is empty."""

DEVICE_KINDS: dict[str, tuple[str, ...]] = {
    "i2c": KINDS["i2c"],
    "gpio": ("unplug", "replug", "noise", "frozen"),
    "serial": ("unplug", "replug", "nack", "noise", "frozen", "corrupt"),
    "mqtt": ("unplug", "replug", "frozen"),
    "spi": KINDS["spi"],
    "w1": KINDS["w1"],
}
"""Which of them can be limited to one device; the only device of a port or broker has those of the bus."""

# Long enough to be seen, short enough that a driver of a dozen transactions stays within its bus's limit.
SLOW_S = 0.1
# A stuck bus is freed by a person; a simulated one also after this time, so that no test waits for ever.
STUCK_LIMIT_S = 60.0
NOISE_PER_BYTE = 0.1


@dataclass(frozen=True, slots=True)
class BusFault:
    """One fault of one bus, or of one device on it; until `until_s` (None: until healed)."""

    kind: str
    device: str | None = None
    until_s: float | None = None


def noisy(data: bytes, chance: random.Random) -> bytes:
    """Some bits flipped and, now and then, a byte of garbage put in."""
    out = bytearray()
    for byte in data:
        dice = chance.random()
        if dice < NOISE_PER_BYTE / 2:
            out.append(chance.randrange(256))
        out.append(byte ^ (1 << chance.randrange(8)) if dice < NOISE_PER_BYTE else byte)
    return bytes(out)


def flipped(data: bytes, chance: random.Random) -> bytes:
    """As `noisy`, but of the same length: an I2C transaction has the length that the host asked for."""
    return bytes(b ^ (1 << chance.randrange(8)) if chance.random() < NOISE_PER_BYTE else b for b in data)


def corrupted(data: bytes, chance: random.Random) -> bytes:
    """Exactly one bit wrong: no checksum over it holds."""
    if not data:
        return data
    out = bytearray(data)
    out[chance.randrange(len(out))] ^= 1 << chance.randrange(8)
    return bytes(out)


class Mailbox:
    """Chunks for one listener, under the board's lock. Full: the oldest go, and `lost` counts them."""

    def __init__(self, lock: threading.RLock, chunks_max: int) -> None:
        self._lock = lock
        self._chunks: deque[Any] = deque()
        self._chunks_max = chunks_max
        self._gone = ""
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.lost = 0

    def put(self, chunk: Any) -> None:
        """Add a chunk; the caller holds the lock."""
        if len(self._chunks) >= self._chunks_max:
            self._chunks.popleft()
            self.lost += 1
        self._chunks.append(chunk)
        if len(self._chunks) == 1:
            self._ring()

    def end(self, reason: str) -> None:
        """The medium has gone: once emptied, `drain` raises BusGone with this reason."""
        self._gone = self._gone or reason
        self._ring()

    def fileno(self) -> int:
        return self._fd

    def drain(self) -> list[Any]:
        """All that waits. Raises BusGone when nothing more can come."""
        with self._lock:
            if self._fd < 0:
                return []
            chunks = list(self._chunks)
            self._chunks.clear()
            if not chunks and self._gone:
                raise BusGone(self._gone)
            if not self._gone:  # then it stays readable, as a hung-up descriptor does
                self._quiet()
            return chunks

    def take_lost(self) -> int:
        """How many were lost since the last time."""
        lost, self.lost = self.lost, 0
        return lost

    def close(self) -> None:
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def _ring(self) -> None:
        if self._fd >= 0:
            os.eventfd_write(self._fd, 1)

    def _quiet(self) -> None:
        try:
            os.eventfd_read(self._fd)
        except BlockingIOError:
            return


# A test that needs more reads the file; a board that runs for weeks must not grow.
KEPT = 10_000


class Record:
    """Entries in memory (the newest `KEPT`) and, with a path, in a file that is flushed as they happen."""

    def __init__(self, path: Path | None = None) -> None:
        self.entries: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._file: TextIO | None = None if path is None else path.open("a", encoding="utf-8", buffering=1)

    def add(self, t: float, bus: str, by: str, **what: Any) -> None:
        """`t` is CLOCK_MONOTONIC in seconds, `by` daemon, guard, stimulus or reset."""
        entry = {"t": t, "bus": bus, **what, "by": by}
        self.entries.append(entry)
        if self._file is not None:
            self._file.write(json.dumps(entry) + "\n")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def as_text(data: bytes) -> str:
    """Bytes as the record writes them: one character each, so that text stays readable."""
    return data.decode("latin-1")


class Timer:
    """One thing to do at `due_s`; `cancel` makes it a no-op."""

    __slots__ = ("act", "due_s")

    def __init__(self, due_s: float, act: Callable[[float], None]) -> None:
        self.due_s = due_s
        self.act: Callable[[float], None] | None = act

    def cancel(self) -> None:
        self.act = None


class Timers:
    """Pending timers in order. Used under the board's lock alone."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()

    def at(self, due_s: float, act: Callable[[float], None]) -> Timer:
        """Call `act(due_s)` then: it gets the due time, so that timestamps do not depend on delays."""
        timer = Timer(due_s, act)
        heapq.heappush(self._heap, (due_s, next(self._order), timer))
        return timer

    def next_due_s(self) -> float | None:
        while self._heap and self._heap[0][2].act is None:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def run_due(self, now_s: float) -> None:
        while (due_s := self.next_due_s()) is not None and due_s <= now_s:
            timer = heapq.heappop(self._heap)[2]
            if timer.act is not None:
                timer.act(due_s)


class Pacer:
    """Runs timers on the real clock: one daemon thread, begun with the first timer."""

    def __init__(
        self, changed: threading.Condition, timers: Timers, monotonic_s: Callable[[], float]
    ) -> None:
        self._changed = changed
        self._timers = timers
        self._monotonic_s = monotonic_s
        self._thread: threading.Thread | None = None
        self._ended = False

    def nudge(self) -> None:
        """A timer was added (the caller holds the lock)."""
        if self._thread is None and not self._ended:
            self._thread = threading.Thread(target=self._run, name="board-pacer", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _run(self) -> None:
        with self._changed:
            while not self._ended:
                now_s = self._monotonic_s()
                self._timers.run_due(now_s)
                due_s = self._timers.next_due_s()
                self._changed.wait(None if due_s is None else max(0.0, due_s - self._monotonic_s()))

    def close(self) -> None:
        """End the thread and wait for it; not to be called under the lock."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()


class BoardUser(Protocol):
    """Who calls: a client of the board, as the record and the media know it."""

    by: str
    generations: dict[str, int]

    def alive(self) -> bool:
        """Whether the client is still there; a stuck call is let go when it is not."""


@dataclass(slots=True)
class Placed:
    """A configured device on a bus, with its chip (None: a bare far end)."""

    name: str
    driver: type[Driver[Any, Any]]
    config: DriverConfig
    chip: Chip | None


class Medium:
    """One simulated bus. Every method is called with the board's lock held."""

    kind: ClassVar[str] = ""

    def __init__(self, board: "Board", name: str, placed: Mapping[str, Placed], seed: int = 0) -> None:
        self.board = board
        self.name = name
        self.placed = dict(placed)
        self.faults: dict[tuple[str, str | None], BusFault] = {}
        self.chance = random.Random(seed)
        self.generation = 0
        """Grows with each unplugging: what was opened before is dead, even after the return."""
        self._held_back: dict[tuple[str, str], Physical] = {}
        self._outputs = {
            device.name: device.chip.outputs() for device in placed.values() if device.chip is not None
        }

    # -- faults -------------------------------------------------------------------------------------------

    def has(self, kind: str, device: str | None = None) -> bool:
        """Whether the whole bus, or this device on it, has that fault."""
        return bool(self.faults) and ((kind, None) in self.faults or (kind, device) in self.faults)

    def fault(self, kind: str, device: str | None, until_s: float | None) -> BusFault | None:
        """Returns what was made, None for `replug`. Raises ValueError that names what this bus knows."""
        if kind not in KINDS[self.kind]:
            known = ", ".join(KINDS[self.kind])
            raise ValueError(f"a bus of kind {self.kind} cannot be {kind!r}; {self.name} knows: {known}")
        if device is not None and device not in self.placed:
            known = ", ".join(self.placed) or "none"
            raise ValueError(f"there is no device {device!r} on bus {self.name}; there are: {known}")
        if device is not None and kind not in DEVICE_KINDS[self.kind]:
            raise ValueError(
                f"{kind!r} befalls all of bus {self.name}, not {device} alone: leave the device out"
            )
        if kind == "replug":
            self.mend("unplug", device)
            return None
        made = self.faults[kind, device] = BusFault(kind, device, until_s)
        if kind == "unplug" and device is None:
            self.generation += 1
            self.unplugged(f"bus {self.name} was unplugged")
        elif kind == "unplug" and device is not None:
            self.device_unplugged(self.placed[device])
        return made

    def mend(self, kind: str, device: str | None) -> None:
        if self.faults.pop((kind, device), None) is None:
            return
        if kind == "unplug":
            for placed in self.placed.values():
                if device in (None, placed.name):
                    self.reset(placed)
        if kind == "frozen":
            self.thaw()

    def heal(self) -> None:
        for kind, device in list(self.faults):
            self.mend(kind, device)

    def unplugged(self, reason: str) -> None:
        """The medium was unplugged: end the mailboxes of those that listen."""

    def device_unplugged(self, placed: Placed) -> None:
        """One device has just gone."""

    # -- chips --------------------------------------------------------------------------------------------

    def set(self, placed: Placed, quantity: str, value: Physical) -> None:
        """Change the world around a chip. A frozen chip sees it when it thaws."""
        chip = placed.chip
        if chip is None:
            raise ValueError(f"device {placed.name} has no simulated chip to set {quantity!r} on")
        if self.has("frozen", placed.name) and quantity in chip.quantities():
            self._held_back[placed.name, quantity] = value
            return
        chip.set(quantity, value)
        self.after(placed, self.board.now_s())

    def thaw(self) -> None:
        held_back, self._held_back = self._held_back, {}
        for (device, quantity), value in held_back.items():
            self.set(self.placed[device], quantity, value)

    def reset(self, placed: Placed) -> None:
        """Power-cycle the chip."""
        if placed.chip is not None:
            placed.chip.reset()
            self.after(placed, self.board.now_s(), by="reset")

    def after(self, placed: Placed, at_s: float, by: str = "stimulus") -> None:
        """A chip has changed: what it makes happen is recorded as done by `by`; media add what follows."""
        if placed.chip is None:
            return
        outputs = placed.chip.outputs()
        before = self._outputs.get(placed.name, {})
        if outputs != before:
            self._outputs[placed.name] = outputs
            for point, value in outputs.items():
                if before.get(point) != value:
                    self.board.record.add(at_s, self.name, by, device=placed.name, point=point, value=value)

    # -- calls --------------------------------------------------------------------------------------------

    def open(self, user: BoardUser) -> None:
        """Take the medium. Raises BusGone, BusHeld."""
        if self.has("unplug"):
            raise BusGone(f"bus {self.name} is unplugged")
        user.generations[self.name] = self.generation

    def enter(self, user: BoardUser, device: str | None = None) -> None:
        """Every call begins here. Raises BusGone; waits where the bus is stuck or slow."""
        self._check_there(user)
        if not self.faults:
            return
        if self.has("stuck", device):
            freed = self.board.wait(
                lambda: not self.has("stuck", device), STUCK_LIMIT_S, user.alive, real_time=True
            )
            if not freed:
                raise BusTimeout(f"bus {self.name} is stuck")
        if self.has("slow", device):
            self.board.wait(lambda: False, SLOW_S, user.alive)
        self._check_there(user)

    def _check_there(self, user: BoardUser) -> None:
        if self.has("unplug"):
            raise BusGone(f"bus {self.name} is unplugged")
        if user.generations.setdefault(self.name, self.generation) != self.generation:
            raise BusGone(f"bus {self.name} was unplugged since it was opened; open it again")

    def leave(self, user: BoardUser) -> None:
        """A client has gone: what it held is free."""

    def show(self) -> dict[str, Any]:
        """The state for `board show`."""
        return {"kind": self.kind, "faults": [_fault_shown(fault) for fault in self.faults.values()]}


def _fault_shown(fault: BusFault) -> dict[str, Any]:
    shown: dict[str, Any] = {"kind": fault.kind}
    if fault.device is not None:
        shown["device"] = fault.device
    if fault.until_s is not None:
        shown["until_s"] = fault.until_s
    return shown
