"""What delegations must know after a crash or a reboot: one small JSON file, replaced as a whole.

A damaged file is set aside and logged, and a new one begun: the start never fails.
"""

import time
from pathlib import Path
from typing import Any, Literal

import structlog
from pydantic import BaseModel, Field, ValidationError

from device_agent.delegation.timestamps import Stamp
from device_agent.store.files import write_atomically
from device_agent.store.store_thread import StoreThread

log = structlog.get_logger("delegation")

Turn = Literal["question", "unclear", "acted", "ended"]
Phase = Literal["waiting", "asked", "answered", "open"]
FILE_MAX_BYTES = 8_000_000


class Exchange(BaseModel):
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
    ack: dict[str, Any] = Field(default_factory=dict)


class RuleState(BaseModel):
    """What is stored of one delegation."""

    active: bool = False
    served: bool = False
    """Whether it was asked about since the condition began to hold."""
    asks: list[Stamp] = Field(default_factory=list)
    day: str = ""
    """The local date of the last question by the time of day."""
    turn_of: Stamp | None = None
    """When the present period of `every_s` began."""
    exchange: Exchange | None = None
    last: dict[str, Any] = Field(default_factory=dict)
    """The newest event, with `at`."""


class _Contents(BaseModel):
    rules: dict[str, RuleState] = Field(default_factory=dict)


class StateFile:
    """`rules` is what the file holds, or will hold after `save`. Belongs to the event loop."""

    def __init__(self, path: Path, thread: StoreThread) -> None:
        self.rules: dict[str, RuleState] = {}
        self.failures = 0
        self._path = path
        self._thread = thread

    async def load(self, names: list[str]) -> None:
        """Read what is there; rules that are not configured any more are forgotten."""
        try:
            found = await self._thread.run(self._read)
        except (OSError, TimeoutError, ValidationError, ValueError) as error:
            aside = self._path.with_suffix(f".damaged-{int(time.time())}")
            log.error("delegations_set_aside", file=str(self._path), aside=str(aside), error=str(error)[:300])
            try:
                self._path.replace(aside)
            except OSError as why:
                log.error("delegations_not_set_aside", file=str(self._path), error=str(why))
            found = _Contents()
        self.rules = {name: found.rules.get(name) or RuleState() for name in names}

    def _read(self) -> _Contents:
        try:
            with self._path.open("rb") as file:
                data = file.read(FILE_MAX_BYTES + 1)
        except FileNotFoundError:
            return _Contents()
        if len(data) > FILE_MAX_BYTES:
            raise ValueError(f"the file is larger than {FILE_MAX_BYTES} bytes")
        return _Contents.model_validate_json(data)

    async def save(self) -> bool:
        """Whether it is on the disk now; a full or broken disk is counted and logged."""
        data = _Contents(rules=self.rules).model_dump_json().encode()
        try:
            await self._thread.run(lambda: write_atomically(self._path, data))
        except (OSError, TimeoutError) as error:
            self.failures += 1
            if self.failures == 1 or self.failures % 100 == 0:
                log.error(
                    "delegations_not_written", file=str(self._path), error=str(error), failures=self.failures
                )
            return False
        self.failures = 0
        return True
