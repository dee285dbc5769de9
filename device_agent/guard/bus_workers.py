"""How each actuator is made safe, and the threads that do it: one for each bus with work to do."""

from __future__ import annotations

import _socket
import _thread
import os
import select
import time

from device_agent.guard.actions import carry_out, prepare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from device_agent.guard.actions import ActionData

    Report = dict[str, Any]
    """`device`, `at_ms`, `result` ("done", or "failed: …" once until it works), `why`, `took_ms`."""

# What failed is tried again: soon at first, since a bus is often free a moment later.
AGAIN_FIRST_S = 0.05
AGAIN_MAX_S = 5.0
# A simulated board gives a line back when it has seen its client go; the kernel does before `close` returns.
FAREWELL_LIMIT_S = 0.3


class GuardAction:
    """One action with its descriptor. The bus's thread calls `carry_out`, the main thread everything else."""

    def __init__(self, data: ActionData, fd: int) -> None:
        self.data = data
        self.fd = fd
        self.hold: bool = data["hold"]
        self.exclusive: bool = data["exclusive"]
        self._lock = _thread.allocate_lock()
        self._closing = self._leaving = False
        prepare(data)

    @property
    def is_repeatable(self) -> bool:
        """Whether it can be done without the descriptor that came with it."""
        return bool(self.data.get("path")) or not self.data["fd"]

    def carry_out(self) -> None:
        """Raises OSError. Does nothing after `close`."""
        with self._lock:
            if not self._closing:
                self.fd = carry_out(self.data, self.fd)
        if self._leaving:
            self.let_go()

    def close(self) -> None:
        """Close the descriptor for good."""
        self._closing = True
        self.let_go()

    def let_go(self) -> None:
        """Close the descriptor; if the action is under way, as soon as it has ended.

        `carry_out` makes one of its own, where that is possible.
        """
        self._leaving = True
        if self._lock.acquire(False):
            self._leaving = False
            fd, self.fd = self.fd, -1
            try:
                if fd >= 0:
                    _let_go(self.data, fd)
            finally:
                self._lock.release()


class GuardedActuator:
    """An actuator and the actions that make it safe. `pending` says why it must be, "" when it need not."""

    def __init__(self, device: str, place: str, actions: list[GuardAction]) -> None:
        self.device = device
        self.place = place
        self.actions = actions
        self.pending = ""
        self.failed = self.told = False
        self.inherited = False
        """Whether an earlier daemon handed it over, and the present one has not taken it."""

    @property
    def holds(self) -> bool:
        """Whether it keeps a line driven."""
        return any(action.hold for action in self.actions)

    def make_safe(self, why: str, *, again: bool = False) -> None:
        """To be done by `BusWorkers`, after their `start`. `again`: reported only if it was not yet."""
        if not again:
            self.failed = self.told = False
        self.pending = why

    def let_go(self, actions: list[GuardAction]) -> None:
        """Leave their places to the daemon; what cannot be done without its descriptor is forgotten."""
        for action in actions:
            if action.is_repeatable:
                action.let_go()
        self.give_up([action for action in actions if not action.is_repeatable])

    def give_up(self, actions: list[GuardAction]) -> None:
        """Close these actions and forget them."""
        self.actions = [action for action in self.actions if action not in actions]
        for action in actions:
            action.close()


class BusWorkers:
    """Carries out what is pending until nothing is. Reports come on the thread of the bus."""

    def __init__(self, actuators: dict[str, GuardedActuator], on_report: Callable[[Report], None]) -> None:
        self._actuators = actuators
        self._on_report = on_report
        self._lock = _thread.allocate_lock()
        self._wakes: dict[str, Any] = {}

    def start(self) -> None:
        """Begin everything that is pending; lines first, since they need no bus."""
        waiting = sorted((not a.holds, a.place) for a in self._actuators.values() if a.pending)
        for place in dict.fromkeys(place for _, place in waiting):
            with self._lock:
                wake = self._wakes.get(place)
                if wake is not None:
                    if wake.locked():
                        wake.release()  # it waits for its next try, or is stuck and tries again then
                    continue
                self._wakes[place] = wake = _thread.allocate_lock()
                wake.acquire()
            try:
                _thread.start_new_thread(self._work, (place, wake))
            except RuntimeError:  # no memory for a thread
                self._work(place, None)

    def _work(self, place: str, wake: Any) -> None:
        """Until nothing is pending at this place; without a `wake` one try of each."""
        again_s = AGAIN_FIRST_S
        while True:
            with self._lock:
                todo = [a for a in list(self._actuators.values()) if a.place == place and a.pending]
                if not todo or wake is None:
                    self._wakes.pop(place, None)
                if not todo:
                    return
            failed = [actuator for actuator in todo if not self._try(actuator)]
            if wake is None:
                return
            if failed:
                wake.acquire(timeout=again_s)
                again_s = min(AGAIN_MAX_S, again_s * 2)

    def _try(self, actuator: GuardedActuator) -> bool:
        why, began_s = actuator.pending, time.monotonic()
        failure: Exception | None = None
        for action in actuator.actions:
            try:
                action.carry_out()
            except Exception as error:  # noqa: BLE001 - the other actuators of this thread still need it
                failure = failure or error
        report = {
            "device": actuator.device,
            "at_ms": time.time_ns() // 1_000_000,
            "result": "done" if failure is None else f"failed: {failure}",
            "why": why,
            "took_ms": round((time.monotonic() - began_s) * 1000, 2),
        }
        if failure is None:
            told, actuator.told = actuator.told, True
            actuator.pending = ""
            if not told:
                self._on_report(report)
        elif not actuator.failed:
            actuator.failed = True
            self._on_report(report)
        return failure is None


def _let_go(data: ActionData, fd: int) -> None:
    if data.get("farewell"):
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
