"""Simulated GPIO: lines with a level, a pull, a far end that may drive them, and at most one claim each.

Levels here are physical; `active_low` is applied once, in the handle."""

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self

from device_agent.driver import Actuator
from device_agent.errors import BusError, BusGone, BusHeld, PlaceRefused
from device_agent.testing.board.medium import BoardUser, Mailbox, Medium, Placed, Timer
from device_agent.testing.chips import Drive, GpioChip

if TYPE_CHECKING:
    from device_agent.testing.board.core import Board


class Switch(GpioChip):
    """`active` of an input device: set, it drives the line; until then the line is left to its pull."""

    def __init__(self, line: int, active_low: bool, pull_up: bool) -> None:
        super().__init__({"active": pull_up is not active_low})
        self._line = line
        self._active_low = active_low
        self._touched = False

    @classmethod
    def of(cls, placed: Placed) -> Self | None:
        """The contact for an input with one numbered line; None for anything else."""
        line = getattr(placed.config, "line", None)
        if issubclass(placed.driver, Actuator) or not isinstance(line, int):
            return None
        active_low = bool(getattr(placed.config, "active_low", False))
        return cls(line, active_low, getattr(placed.config, "bias", None) == "pull-up")

    def changed(self, quantity: str) -> None:
        self._touched = True

    def drives(self) -> tuple[Drive, ...]:
        if not self._touched:
            return ()
        return (Drive(self._line, bool(self._quantities["active"]) is not self._active_low),)


LINES = 65_536
# The kernel keeps 16 events a line unless asked for more and then drops the oldest; ours is asked for more.
EDGES_MAX = 4096
# A contact's bounces around one real edge, seconds after it; an even number, so that the edge stands.
BOUNCES_S = (0.0004, 0.0011, 0.0016, 0.0029)


@dataclass(eq=False, slots=True)
class LineClaim:
    """One line taken by one or more users, the first of which decided what it is."""

    id: str
    line: "SimulatedLine"
    output: bool
    holders: list[BoardUser]
    drive: str = "push-pull"
    level: bool = False
    """An output's commanded level."""
    duty: float | None = None
    """Of a PWM output; its `level` then says whether it is ever high."""
    frequency_hz: float = 0.0
    debounce_s: float = 0.0
    debounced: bool = False
    """An input's level after `debounce_s`; read and edges both follow it."""
    settling: Timer | None = None
    mailbox: Mailbox | None = None


@dataclass(eq=False, slots=True)
class SimulatedLine:
    """One pin. What decides its level: an output's claim, else the far end, else the pull."""

    offset: int
    level: bool = False
    by: str = "reset"
    far_end: bool | None = None
    pull_up: bool = False
    claim: LineClaim | None = None
    bounces: list[Timer] = field(default_factory=list)

    def wanted(self) -> bool:
        claim = self.claim
        if claim is not None and claim.output:
            # The side that an open output does not drive is left to an outer resistor, or to the far end.
            if claim.drive == "push-pull" or claim.level is (claim.drive == "open-source"):
                return claim.level
            return claim.level if self.far_end is None else self.far_end
        return self.pull_up if self.far_end is None else self.far_end


class GpioMedium(Medium):
    """The lines of one chip."""

    kind: ClassVar[str] = "gpio"

    def __init__(self, board: "Board", name: str, placed: Mapping[str, Placed], seed: int = 0) -> None:
        super().__init__(board, name, placed, seed)
        self._lines: dict[int, SimulatedLine] = {}
        self._claims: dict[str, LineClaim] = {}
        self._ids = itertools.count(1)
        self._devices: dict[int, str] = {}
        for device in self.placed.values():
            if device.chip is None:
                device.chip = Switch.of(device)
            for line in _lines_of(device):
                self._devices[self.line(line).offset] = device.name

    def line(self, line: int | str) -> SimulatedLine:
        """A line by offset or name. Raises BusError that says what there is."""
        offset = offset_of(line)
        if offset is None or not 0 <= offset < LINES:
            raise PlaceRefused(
                f"there is no line {line!r} on bus {self.name}: use 0 to {LINES - 1}, or GPIO<offset>"
            )
        return self._lines.setdefault(offset, SimulatedLine(offset))

    # -- the host's side ----------------------------------------------------------------------------------

    def input(self, user: BoardUser, line: int | str, bias: str, debounce_s: float, edges: bool) -> LineClaim:
        """Claim an input; the mailbox of the claim gets (level, monotonic_s, lost)."""
        claim = self._claim(user, line, output=False)
        claim.line.pull_up = bias == "pull-up" or (bias == "as-is" and claim.line.pull_up)
        self._settle(claim.line, self.board.now_s(), user.by)
        claim.debounce_s = debounce_s
        claim.debounced = claim.line.level
        if edges:
            claim.mailbox = Mailbox(self.board.lock, EDGES_MAX)
        return claim

    def output(self, user: BoardUser, line: int | str, level: bool, drive: str) -> LineClaim:
        """Claim an output with its level in the same step."""
        claim = self._claim(user, line, output=True)
        claim.drive = drive
        claim.level = level
        self._settle(claim.line, self.board.now_s(), user.by, always=True)
        return claim

    def hold(self, user: BoardUser, line: int | str, level: bool, drive: str) -> None:
        """`output`, or `write` where this user has it already."""
        claim = self.line(line).claim
        if claim is not None and user in claim.holders:
            self.write(user, claim.id, level)
        else:
            self.output(user, line, level, drive)

    def pwm(self, user: BoardUser, line: int | str, duty: float, frequency_hz: float) -> LineClaim:
        """Claim a PWM output, with its first physical duty."""
        claim = self._claim(user, line, output=True)
        self._switch(claim, duty, frequency_hz, user.by)
        return claim

    def pwm_write(self, user: BoardUser, claim_id: str, duty: float, frequency_hz: float) -> None:
        self._switch(self._held(user, claim_id), duty, frequency_hz, user.by)

    def pwm_read(self, user: BoardUser, claim_id: str) -> tuple[float, float]:
        claim = self._held(user, claim_id)
        return claim.duty or 0.0, claim.frequency_hz

    def _switch(self, claim: LineClaim, duty: float, frequency_hz: float, by: str) -> None:
        claim.duty, claim.frequency_hz, claim.level = duty, frequency_hz, duty > 0
        line = claim.line
        line.level, line.by = claim.level, by
        what = {"line": line.offset, "level": int(line.level), "duty": duty, "frequency_hz": frequency_hz}
        self.board.record.add(self.board.now_s(), self.name, by, **what)

    def _claim(self, user: BoardUser, wanted: int | str, *, output: bool) -> LineClaim:
        self.enter(user)
        line = self.line(wanted)
        if line.claim is not None:
            holders = ", ".join(sorted({holder.by for holder in line.claim.holders}))
            raise BusHeld(f"line {line.offset} of bus {self.name} is held by {holders}")
        claim = LineClaim(f"{self.name}/{line.offset}/{next(self._ids)}", line, output, [user])
        line.claim = claim
        self._claims[claim.id] = claim
        return claim

    def attach(self, user: BoardUser, claim_id: str) -> LineClaim:
        """Hold an output together with its first holder: it stays driven until the last one lets go."""
        claim = self._held(user, claim_id)
        if user not in claim.holders:
            claim.holders.append(user)
        return claim

    def write(self, user: BoardUser, claim_id: str, level: bool) -> None:
        claim = self._held(user, claim_id)
        if not claim.output:
            raise BusError(f"line {claim.line.offset} of bus {self.name} is an input")
        claim.level = level
        self._settle(claim.line, self.board.now_s(), user.by)

    def read(self, user: BoardUser, claim_id: str) -> bool:
        claim = self._held(user, claim_id)
        return claim.debounced if claim.debounce_s > 0 else claim.line.level

    def _held(self, user: BoardUser, claim_id: str) -> LineClaim:
        self.enter(user)
        claim = self._claims.get(claim_id)
        if claim is None:
            raise BusGone(f"claim {claim_id} on bus {self.name} was released or died with the chip")
        return claim

    def leave(self, user: BoardUser) -> None:
        for claim in list(self._claims.values()):
            if user in claim.holders:
                claim.holders.remove(user)
                if not claim.holders:
                    self._free(claim)

    def _free(self, claim: LineClaim) -> None:
        self._claims.pop(claim.id, None)
        if claim.settling is not None:
            claim.settling.cancel()
        line = claim.line
        line.claim = None
        line.pull_up = False
        self._settle(line, self.board.now_s(), "reset", always=claim.output)

    def unplugged(self, reason: str) -> None:
        for claim in list(self._claims.values()):
            if claim.mailbox is not None:
                claim.mailbox.end(reason)
            self._free(claim)

    # -- levels -------------------------------------------------------------------------------------------

    def pin(self, line: int | str, level: bool | None) -> None:
        """The far end drives a line, or lets go of it."""
        self._pin(self.line(line), level, self.board.now_s())

    def _pin(self, line: SimulatedLine, level: bool | None, at_s: float) -> None:
        line.far_end = level
        self._settle(line, at_s, "stimulus")

    def _settle(self, line: SimulatedLine, at_s: float, by: str, *, always: bool = False) -> None:
        """Bring the line to what its drivers want. `always`: record it even if the level was so already."""
        device = self._devices.get(line.offset)
        level = line.level if self.has("frozen", device) else line.wanted()
        if level == line.level and not always:
            return
        line.by = by
        bouncing = by == "stimulus" and level != line.level and self.has("noise", device)
        self._become(line, level, at_s, by, always=always)
        if bouncing:
            self._bounce(line, level, at_s)
        if line.claim is not None and line.claim.output:
            for placed in self.placed.values():
                if isinstance(placed.chip, GpioChip):
                    self._drive(placed.chip.saw(line.offset, level), at_s)
                    Medium.after(self, placed, at_s, by)

    def _become(
        self, line: SimulatedLine, level: bool, at_s: float, by: str = "stimulus", *, always: bool = False
    ) -> None:
        if level == line.level and not always:
            return
        changed = level != line.level
        line.level = level
        self.board.record.add(at_s, self.name, by, line=line.offset, level=int(level))
        if changed and line.claim is not None and not line.claim.output:
            self._sense(line.claim, at_s)

    def _bounce(self, line: SimulatedLine, level: bool, at_s: float) -> None:
        for timer in line.bounces:
            timer.cancel()
        line.bounces = [
            self.board.at(at_s + after_s, partial(self._become, line, level if index % 2 else not level))
            for index, after_s in enumerate(BOUNCES_S)
        ]

    def _sense(self, claim: LineClaim, at_s: float) -> None:
        if claim.debounce_s <= 0:
            self._edge(claim, claim.line.level, at_s)
            return
        if claim.settling is not None:
            claim.settling.cancel()
            claim.settling = None
        if claim.line.level != claim.debounced:
            claim.settling = self.board.at(
                at_s + claim.debounce_s, lambda due_s: self._held_long(claim, due_s)
            )

    def _held_long(self, claim: LineClaim, due_s: float) -> None:
        claim.settling = None
        claim.debounced = claim.line.level
        self._edge(claim, claim.debounced, due_s)

    def _edge(self, claim: LineClaim, level: bool, at_s: float) -> None:
        if claim.mailbox is not None and not self.has("stuck"):
            claim.mailbox.put((level, at_s))

    def device_unplugged(self, placed: Placed) -> None:
        for offset, device in self._devices.items():
            if device == placed.name:
                self.pin(offset, None)

    # -- chips on lines -----------------------------------------------------------------------------------

    def _drive(self, drives: Iterable[Drive], at_s: float) -> None:
        for drive in drives:
            line = self.line(drive.line)
            if drive.after_s <= 0:
                self._pin(line, drive.level, at_s)
            else:
                self.board.at(at_s + drive.after_s, partial(self._pin, line, drive.level))

    def after(self, placed: Placed, at_s: float, by: str = "stimulus") -> None:
        super().after(placed, at_s, by)
        if isinstance(placed.chip, GpioChip) and not self.has("unplug", placed.name):
            self._drive(placed.chip.drives(), at_s)

    def thaw(self) -> None:
        super().thaw()
        for line in self._lines.values():
            self._settle(line, self.board.now_s(), line.by)

    def show(self) -> dict[str, Any]:
        return super().show() | {"lines": [_shown(line) for _, line in sorted(self._lines.items())]}


def _shown(line: SimulatedLine) -> dict[str, Any]:
    claim = line.claim
    switching = {}
    if claim is not None and claim.duty is not None:
        switching = {"duty": claim.duty, "frequency_hz": claim.frequency_hz}
    return switching | {
        "line": line.offset,
        "name": f"GPIO{line.offset}",
        "level": int(line.level),
        "direction": "output" if claim is not None and claim.output else "input",
        "holders": [] if claim is None else sorted(holder.by for holder in claim.holders),
        "by": line.by,
    }


def offset_of(line: int | str) -> int | None:
    """A line's offset: 17, "17" or "GPIO17"; None for a name this board does not have."""
    if isinstance(line, int):
        return line
    found = re.fullmatch(r"(?:GPIO_?)?(\d+)", line, re.IGNORECASE)
    return int(found.group(1)) if found else None


def _lines_of(device: Placed) -> list[int | str]:
    claimed = (
        claim.removeprefix("line ") for claim in device.driver.claims(device.config) if "line " in claim
    )
    return [line for line in claimed if offset_of(line) is not None]
