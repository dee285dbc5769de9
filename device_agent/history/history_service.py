"""Requests about the history: checked here, and answered by a child process."""

import asyncio
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from device_agent.clock import Clock
from device_agent.commands.authorization import check_read
from device_agent.config.secret import child_environment
from device_agent.devices.device import Device
from device_agent.errors import AgentError, Fault, Rejected
from device_agent.history.error_texts import can_draw, disabled, no_pillow
from device_agent.history.query import LIMIT_BYTES, Export, Query, checked_zone
from device_agent.messages.requests import HistoryRequest
from device_agent.store.history.history_recorder import HistoryRecorder

log = structlog.get_logger("history")

MIME_TYPES = {"json": "application/json", "csv": "text/csv", "png": "image/png"}
DEFAULT_SPAN_MS = 86_400_000
# The end of the year 9999, where calendars end.
LAST_MS = 253_402_300_799_000
# A board with one slow core needs a minute for the largest answer.
ANSWER_LIMIT_S = 300.0


@dataclass(frozen=True, slots=True)
class HistoryAnswer:
    """The members of `result`, and the readings to deliver: bytes, or the file that has them."""

    result: dict[str, Any]
    data: bytes | Path
    mime_type: str
    file_name: str


class HistoryService:
    """Answers one request at a time. `history` is None if the configuration disables it."""

    def __init__(
        self, title: str, history: HistoryRecorder | None, devices: Mapping[str, Device], clock: Clock
    ) -> None:
        self.history = history
        self._title = title
        self._devices = devices
        self._clock = clock
        self._answering = asyncio.Lock()

    async def answer(
        self,
        request: HistoryRequest,
        may_read: Callable[[str], bool],
        *,
        limit_bytes: int = LIMIT_BYTES,
        limit_s: float = ANSWER_LIMIT_S,
        out: Path | None = None,
    ) -> HistoryAnswer:
        """The readings are in the file `out`, if there is one.

        `limit_bytes` is of the answer, `limit_s` of the work. Raises Rejected with the field and the reason,
        AgentError if the history cannot be read.
        """
        if self.history is None:
            raise Rejected("invalid_value", f"op: {disabled()}")
        if request.format == "png" and not can_draw():
            raise Rejected("invalid_value", f"format: {no_pillow()}")
        query = self._query(request, may_read, limit_bytes)
        # One at a time: many processes would be too much for a small board.
        async with self._answering:
            await self.history.flush()
            if not self.history.path.exists():
                raise AgentError("the history has not been begun: its disk is full or broken, see the log")
            export = await run_child(replace(query, out=str(out or "")), limit_s)
        result = {"count": export.count, "from": query.from_ms, "to": query.to_ms}
        return HistoryAnswer(result, out or export.data, MIME_TYPES[query.format], f"history.{query.format}")

    def _query(self, request: HistoryRequest, may_read: Callable[[str], bool], limit_bytes: int) -> Query:
        names = request.devices
        if names is None:
            names = [name for name, device in self._devices.items() if device.points and may_read(name)]
        for name in names:
            check_read(name, self._devices, may_read)
        to_ms = self._clock.now_ms() if request.to is None else instant_ms(request.to, "to")
        from_ms = to_ms - DEFAULT_SPAN_MS if request.from_ is None else instant_ms(request.from_, "from")
        if from_ms >= to_ms:
            raise Rejected("invalid_value", f"from: it is not before to ({from_ms} and {to_ms})")
        units = {
            name: {point.name: str(point.unit) for point in self._devices[name].points.values()}
            for name in names
        }
        assert self.history is not None
        return Query(
            path=str(self.history.path),
            devices=tuple(dict.fromkeys(names)),
            from_ms=from_ms,
            to_ms=to_ms,
            every_ms=max(1, round(request.every_s * 1000)) if request.every_s else 0,
            format=request.format,
            units=units,
            title=self._title,
            limit_bytes=limit_bytes,
            zone=checked_zone(request.zone, request.every_s),
            formerly={name: list(self._devices[name].config.formerly) for name in names},
        )


def instant_ms(value: int | str, name: str) -> int:
    """Epoch milliseconds from themselves, as number or text, or from ISO 8601 (UTC without an offset)."""
    try:
        if isinstance(value, str) and not value.isdecimal():
            at = datetime.fromisoformat(value)
            value = round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
        number = int(value)
    except (ValueError, OverflowError):
        number = -1
    if not 0 <= number <= LAST_MS:
        raise Rejected(
            "invalid_value",
            f"{name}: {value!r:.60} is no instant: write 2026-05-01T06:00:00Z, or epoch milliseconds",
        )
    return number


async def run_child(query: Query, limit_s: float) -> Export:
    """The answer of a child process. Raises Rejected with its reason, AgentError if it fails."""
    # -P: nothing is imported from the working directory.
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "device_agent.history"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=child_environment(),
    )
    try:
        async with asyncio.timeout(limit_s):
            out, err = await child.communicate(json.dumps(asdict(query)).encode())
    except TimeoutError:
        raise AgentError(f"the history was not read within {limit_s:g} s: ask for less") from None
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    head, _, body = out.partition(b"\n")
    if child.returncode != 0 or not head:
        log.error("history_child_died", code=child.returncode, output=err.decode("utf-8", "replace")[-2000:])
        raise AgentError("the history could not be read: its process died, see the agent's log")
    head_members = json.loads(head)
    if "error" in head_members:
        fault = Fault.from_members(head_members["error"])
        raise Rejected(fault.code, fault.message)
    return Export(body, head_members["count"])
