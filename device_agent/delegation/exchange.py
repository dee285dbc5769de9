"""One question to an AI agent and what has come of it, as it is stored."""

from dataclasses import dataclass, field
from typing import Any, Literal

from device_agent.triggers.schedule import TriggerMemory
from device_agent.triggers.timestamps import Stamp

Turn = Literal["question", "unclear", "acted", "ended"]
Phase = Literal["waiting", "asked", "answered", "open"]


@dataclass(slots=True, kw_only=True)
class Exchange:
    """One question and what follows in its session. `phase` is of the present `turn`; `open`: only the end
    of the condition is still to be told.
    """

    id: str
    cause: str
    conditional: bool
    """Whether a condition asked; it must still hold when a command of the answer is carried out."""
    do: str = ""
    """The id of the `do` that asked, if one did."""
    asked_at_ms: int
    turn: Turn = "question"
    phase: Phase = "waiting"
    began: Stamp
    """When the turn began."""
    message: str = ""
    """The text to send; empty once the service has it."""
    sends: int = 0
    """How often it was sent without knowing whether the service received it."""
    session: str = ""
    page: str = ""
    final_message: str = ""
    answer: str = ""
    cut: bool = False
    command: str = ""
    """The name that the answer chose from the list."""
    unclear: str = ""
    """Why it chose none."""
    ack: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class RuleState(TriggerMemory):
    """What is stored of one delegation."""

    exchange: Exchange | None = None
    last: dict[str, Any] = field(default_factory=dict)
    """The newest event, with `at`."""
