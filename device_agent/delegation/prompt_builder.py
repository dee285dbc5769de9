"""The text of a question: the owner's template, filled in, and the readings that go with it."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime

from device_agent.clock import Clock
from device_agent.config.delegation import PLACEHOLDER, Attached, Delegation
from device_agent.delegation.answer import form
from device_agent.devices.device import Device
from device_agent.errors import AgentError, Rejected
from device_agent.history.history_service import HistoryService
from device_agent.messages.requests import HistoryRequest
from device_agent.records import Reading
from device_agent.text.printable import printable
from device_agent.triggers.present import TEXT_MAX, Present

# About so many rows of history for each device, whatever the span.
ROWS = 60
HISTORY_MAX_BYTES = 24_000
HISTORY_LIMIT_S = 60.0


class PromptBuilder:
    """`title` is the agent's name for people."""

    def __init__(
        self, title: str, devices: Mapping[str, Device], history_service: HistoryService, clock: Clock
    ) -> None:
        self.present = Present(devices)
        self._title = title
        self._devices = devices
        self._history_service = history_service
        self._clock = clock

    async def question(self, rule: Delegation, asked: str) -> str:
        """The first message of a session. `asked` is what a caller's `do` brought along."""
        parts = [self.fill(rule.message, asked)]
        if rule.readings is not None:
            parts.append(await self._readings(rule.readings))
        if rule.commands:
            parts.append(form(rule.commands))
        return "\n\n".join(parts)

    def fill(self, template: str, asked: str = "") -> str:
        """A template with its placeholders filled in."""
        return PLACEHOLDER.sub(lambda match: self._value(match[1], asked), template)

    def _value(self, key: str, asked: str) -> str:
        if key == "question":
            return asked
        if key == "agent":
            return self._title
        if key == "time":
            return self._now()
        name, _, point = key.partition(".")
        return self.present.value_of(name, point)

    def _now(self) -> str:
        if not self._clock.is_set():
            return "an unknown time (the clock is not set)"
        return datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    async def _readings(self, wanted: Attached) -> str:
        present = [self._present(name) for name in wanted.devices if name in self._devices]
        parts = [
            "Present readings, as JSON:",
            "\n".join(json.dumps(device, ensure_ascii=False) for device in present),
        ]
        if wanted.last_s is not None:
            parts += [f"The record of the last {wanted.last_s:g} s, as CSV:", await self._history(wanted)]
        return "\n".join(parts)

    def _present(self, name: str) -> dict[str, object]:
        device = self._devices[name]
        present: dict[str, object] = {"device": name, "state": str(device.state)}
        if device.online and device.latest is not None:
            reading: Reading = device.latest
            present["values"] = {
                point: printable(value, TEXT_MAX) if isinstance(value, str) else value
                for point, value in reading.values.items()
            }
            present["age_s"] = round(max(0.0, self._clock.monotonic_s() - reading.monotonic_s), 1)
            if reading.flags:
                present["flags"] = {point: str(flag) for point, flag in reading.flags.items()}
            present["units"] = {point.name: str(point.unit) for point in device.points.values() if point.unit}
        return present

    async def _history(self, wanted: Attached) -> str:
        """As CSV, or why there is none: a missing history does not keep a question from being asked."""
        assert wanted.last_s is not None
        names = [name for name in wanted.devices if name in self._devices]
        now_ms = self._clock.now_ms()
        request = HistoryRequest(
            devices=names,
            from_=max(0, now_ms - round(wanted.last_s * 1000)),
            to=now_ms,
            every_s=max(1.0, wanted.last_s / ROWS),
            format="csv",
        )
        try:
            answer = await self._history_service.answer(request, names.__contains__, limit_s=HISTORY_LIMIT_S)
        except (Rejected, AgentError) as error:
            return f"(there is no record: {error})"
        assert isinstance(answer.data, bytes)
        text = answer.data.decode("utf-8", "replace")
        if len(answer.data) <= HISTORY_MAX_BYTES:
            return text.strip()
        head, _, rest = text.partition("\n")
        newest = rest.encode()[-HISTORY_MAX_BYTES:].decode("utf-8", "ignore").partition("\n")[2]
        return f"{head}\n{newest.strip()}\n(the older part is left out)"
