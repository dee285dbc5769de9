"""What is known of each actuator, and the threads that bring it to safe: one for each bus with work to do."""

from __future__ import annotations

import _socket
import _thread
import os
import select
import time

from device_agent.guard.acts import carry_out, prepare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from device_agent.guard.acts import Act

    Outcome = dict[str, Any]
    """`device`, `at_ms`, `result` ("done", or "failed: …" once for each trouble), `why`, `took_ms`."""

# What failed is tried again: soon at first, since a bus is often free a moment later.
AGAIN_FIRST_S = 0.05
AGAIN_MAX_S = 5.0
# A simulated board gives a line back when it has seen its client go; the kernel does before `close` returns.
FAREWELL_LIMIT_S = 0.3


class Part:
    """One act with its descriptor. `carry_out` is the bus's thread's, everything else the main thread's."""

    def __init__(self, act: Act, fd: int) -> None:
        self.act = act
        self.fd = fd
        self.hold: bool = act["hold"]
        self.exclusive: bool = act["exclusive"]
        self._lock = _thread.allocate_lock()
        self._closing = False
        prepare(act)

    def carry_out(self) -> None:
        """Raises OSError. Does nothing once it is given up."""
        with self._lock:
            if not self._closing:
                self.fd = carry_out(self.act, self.fd)
        if self._closing:
            self.close()

    def close(self) -> None:
        """Give the descriptor up; if the act is under way, as soon as it is over."""
        self._closing = True
        if self._lock.acquire(False):
            fd, self.fd = self.fd, -1
            try:
                if fd >= 0:
                    _let_go(self.act, fd)
            finally:
                self._lock.release()


class Entry:
    """An actuator and its way to safe. `pending` says why it must go there, "" when it need not."""

    def __init__(self, device: str, place: str, parts: list[Part]) -> None:
        self.device = device
        self.place = place
        self.parts = parts
        self.pending = ""
        self.failed = False

    @property
    def holds(self) -> bool:
        """Whether it keeps a line driven."""
        return any(part.hold for part in self.parts)

    def give_up(self, parts: list[Part]) -> None:
        """Close these parts and forget them."""
        self.parts = [part for part in self.parts if part not in parts]
        for part in parts:
            part.close()


class Crew:
    """Carries out what is pending until nothing is. `tell` gets each outcome, on the thread of its bus."""

    def __init__(self, entries: dict[str, Entry], tell: Callable[[Outcome], None]) -> None:
        self._entries = entries
        self._tell = tell
        self._lock = _thread.allocate_lock()
        self._alarms: dict[str, Any] = {}

    def start(self) -> None:
        """See to everything that is pending; lines first, since they need no bus."""
        waiting = sorted((not e.holds, e.place) for e in self._entries.values() if e.pending)
        for place in dict.fromkeys(place for _, place in waiting):
            with self._lock:
                alarm = self._alarms.get(place)
                if alarm is not None:
                    if alarm.locked():
                        alarm.release()  # it waits for its next try, or is stuck and tries again then
                    continue
                self._alarms[place] = alarm = _thread.allocate_lock()
                alarm.acquire()
            try:
                _thread.start_new_thread(self._work, (place, alarm))
            except RuntimeError:  # no memory for a thread
                self._work(place, None)

    def _work(self, place: str, alarm: Any) -> None:
        """Until nothing is pending at this place; without an alarm one try of each."""
        again_s = AGAIN_FIRST_S
        while True:
            with self._lock:
                todo = [e for e in list(self._entries.values()) if e.place == place and e.pending]
                if not todo or alarm is None:
                    self._alarms.pop(place, None)
                if not todo:
                    return
            failed = [entry for entry in todo if not self._try(entry)]
            if alarm is None:
                return
            if failed:
                alarm.acquire(timeout=again_s)
                again_s = min(AGAIN_MAX_S, again_s * 2)

    def _try(self, entry: Entry) -> bool:
        why, began_s = entry.pending, time.monotonic()
        trouble: Exception | None = None
        for part in entry.parts:
            try:
                part.carry_out()
            except Exception as error:  # noqa: BLE001 - the thread's life: the other actuators still need it
                trouble = trouble or error
        outcome = {
            "device": entry.device,
            "at_ms": time.time_ns() // 1_000_000,
            "result": "done" if trouble is None else f"failed: {trouble}",
            "why": why,
            "took_ms": round((time.monotonic() - began_s) * 1000, 2),
        }
        if trouble is None:
            entry.pending = ""
            self._tell(outcome)
        elif not entry.failed:
            entry.failed = True
            self._tell(outcome)
        return trouble is None


def _let_go(act: Act, fd: int) -> None:
    if act.get("farewell"):
        sock = _socket.socket(fileno=fd)
        try:
            sock.shutdown(_socket.SHUT_WR)
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            while poll.poll(FAREWELL_LIMIT_S * 1000) and sock.recv(4096):
                pass
        except OSError:
            pass  # the board has gone, and the line with it
        finally:
            sock.close()
    else:
        os.close(fd)
