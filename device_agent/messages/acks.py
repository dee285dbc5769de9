"""The answer to a command, typed until it leaves the process (docs/events.md)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from device_agent.errors import Fault
from device_agent.records import Value


class AckState(StrEnum):
    """What became of a command."""

    DONE = "done"
    REJECTED = "rejected"
    """Nothing moved."""
    FAILED = "failed"
    """It was tried, and did not come out as it was asked for."""
    UNKNOWN = "unknown"
    """It may have happened, in part or in whole."""


@dataclass(frozen=True, slots=True)
class Ack:
    """The answer to the command with this `id`; the event that carries it adds `at` and `seq`."""

    id: str
    state: AckState = AckState.DONE
    commanded: Mapping[str, Value] | None = None
    """The points, or an action's arguments, as they went to the device; None if nothing did."""
    applied: Mapping[str, Value] | None = None
    """The points as they are now: read back where the hardware can be asked, else as commanded."""
    verified: bool = False
    """All of `applied` was read back and is as commanded. Meaningful for `done` only."""
    error: Fault | None = None
    hand_over: bool | None = None
    """Of a preview: whether the device would go to safe first, because it passes to another driver."""
    dry_run: bool = False
    repeated: bool = False
    """This id was answered before: nothing moved now, and nothing was read back."""

    def again(self, id_: str) -> "Ack":
        """The answer to the same id, seen again."""
        return replace(self, id=id_, verified=False, repeated=True)

    def members(self) -> dict[str, Any]:
        """As events, results and the Journal have it, in their order."""
        members: dict[str, Any] = {"id": self.id, "state": self.state.value}
        if self.commanded is not None:
            members["commanded"] = dict(self.commanded)
        if self.applied is not None:
            members["applied"] = dict(self.applied)
        if self.state is AckState.DONE and not self.repeated:
            members["verified"] = self.verified
        if self.error is not None:
            members["error"] = self.error.members()
        if self.hand_over is not None:
            members["hand_over"] = self.hand_over
        if self.dry_run:
            members["dry_run"] = True
        if self.repeated:
            members["repeated"] = True
        return members

    @classmethod
    def from_members(cls, members: Mapping[str, Any]) -> "Ack":
        """What `members` made. Raises KeyError without `id` or `state`, ValueError for an unknown state."""
        error = members.get("error")
        return cls(
            id=members["id"],
            state=AckState(members["state"]),
            commanded=members.get("commanded"),
            applied=members.get("applied"),
            verified=members.get("verified", False),
            error=None if error is None else Fault.from_members(error),
            hand_over=members.get("hand_over"),
            dry_run=members.get("dry_run", False),
            repeated=members.get("repeated", False),
        )
