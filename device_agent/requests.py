"""Request tasks: one question, answered with a `result` artifact and a terminal (design section 5)."""

import asyncio
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import structlog
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from device_agent.authority import Actor, check_read, may
from device_agent.commander import Commander
from device_agent.config import Config
from device_agent.device import Device
from device_agent.errors import AgentError, BusError, DriverError, NetworkError, Rejected
from device_agent.history.ask import Historian, HistoryQuestion
from device_agent.network import TaskLink
from device_agent.records import File, Reading
from device_agent.words import Do, Set, sentence

log = structlog.get_logger("request")

# A device that does not answer must not hold a request, which a person waits for (W18).
READ_LIMIT_S = 15.0


class _Question(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ReadQuestion(_Question):
    """Present readings of these devices, of all without a list."""

    op: Literal["read"]
    devices: list[str] | None = Field(None, min_length=1, max_length=256)


class SetQuestion(_Question):
    """Set points; with `for_s` they go back to safe after that time."""

    op: Literal["set"]
    device: str = Field(min_length=1, max_length=64)
    values: dict[str, Any] = Field(min_length=1, max_length=64)
    for_s: float | int | None = Field(None, gt=0, le=86_400)


class DoQuestion(_Question):
    """Carry out an action."""

    op: Literal["do"]
    device: str = Field(min_length=1, max_length=64)
    action: str = Field(min_length=1, max_length=64)
    args: dict[str, Any] = Field({}, max_length=64)


class DescribeQuestion(_Question):
    """What devices there are, with points, units and ranges."""

    op: Literal["describe"]


Question = Annotated[
    ReadQuestion | SetQuestion | DoQuestion | DescribeQuestion | HistoryQuestion, Field(discriminator="op")
]
_ADAPTER: TypeAdapter[Any] = TypeAdapter(Question)


class RequestTask:
    """One request task. `run` ends with its terminal; who cancels it sees to the terminal."""

    def __init__(
        self,
        link: TaskLink,
        config: Config,
        devices: Mapping[str, Device],
        commander: Commander,
        historian: Historian,
    ) -> None:
        self.link = link
        task_id = link.start.task_id
        self.actor = Actor(task_id, f"request {task_id[:8]}", link.start.caller, "request")
        self._config = config
        self._devices = devices
        self._commander = commander
        self._historian = historian
        self._more: tuple[str, File] | None = None
        """What comes with the result, and as which output."""

    async def run(self) -> None:
        """Answer the question: artifact first, then the terminal."""
        op = "unknown"
        try:
            question = self._question()
            op = question.op
            result = await self._answer(question)
        except Rejected as rejected:
            result = {"state": "rejected", "error": {"code": rejected.code, "message": rejected.message}}
        except (BusError, DriverError) as error:
            result = {"state": "failed", "error": {"code": "device_offline", "message": str(error)}}
        except AgentError as error:
            result = {"state": "failed", "error": {"code": "internal", "message": str(error)}}
        finally:
            self._commander.request_ends(self.actor.holder)
        result = {"op": op, **result}
        try:
            await self._deliver(result)
        except NetworkError as error:
            self.link.terminal("failed", error=f"internal: the result could not be delivered: {error}")
            return
        if result["state"] == "done":
            self.link.terminal("completed")
        else:
            fault = result.get("error") or {"code": "internal", "message": result["state"]}
            self.link.terminal("failed", error=f"{fault['code']}: {fault['message']}")

    async def _say(self, result: Mapping[str, Any]) -> None:
        body = json.dumps(result, separators=(",", ":"), allow_nan=False).encode()
        await self.link.artifact(body, "application/json", output_id="result", file_name="result.json")

    async def _deliver(self, result: dict[str, Any]) -> None:
        """The result, and the readings or file after it; it says `done` only once the network has both."""
        said = False
        if self._more is None:
            await self._say(result)
            return
        output_id, file = self._more

        async def say() -> None:
            nonlocal said
            said = True
            await self._say(result)

        try:
            await self.link.artifact(
                file.data, file.mime_type, output_id=output_id, file_name=file.name, before=say
            )
        except NetworkError as error:
            if said:
                raise
            fault = {"code": "internal", "message": f"the {output_id} could not be delivered: {error}"}
            result |= {"state": "failed", "error": fault}
            await self._say(result)

    def _question(self) -> Any:
        parts = self.link.start.parts
        if not parts:
            raise Rejected("invalid_value", "the input part 'request' is missing")
        for part in parts:
            if part.part_id != "request":
                raise Rejected("invalid_value", f"there is no input {part.part_id!r}; there is: request")
        if len(parts) > 1:
            raise Rejected("invalid_value", "the input part 'request' came more than once")
        if parts[0].text is None:
            raise Rejected("invalid_value", "the input part 'request' is a file; it takes JSON text")
        try:
            return _ADAPTER.validate_json(parts[0].text)
        except ValidationError as error:
            raise Rejected("invalid_value", f"request: {sentence(error)}") from None

    async def _answer(self, question: Any) -> dict[str, Any]:
        match question:
            case ReadQuestion():
                return await self._read(question)
            case SetQuestion():
                return await self._command(
                    Set(kind="set", id=self._id(), device=question.device, values=question.values),
                    question.for_s,
                )
            case DoQuestion():
                return await self._command(
                    Do(
                        kind="do",
                        id=self._id(),
                        device=question.device,
                        action=question.action,
                        args=question.args,
                    ),
                    None,
                )
            case HistoryQuestion():
                answer = await self._historian.answer(question, self._may_read)
                self._more = "history", File(answer.file_name, answer.mime_type, answer.data)
                return {"state": "done", **answer.result}
            case _:
                return {"state": "done", "devices": self._describe()}

    def _id(self) -> str:
        """A task is asked for once, so its id serves as the command's."""
        return f"task:{self.link.start.task_id}"[:200]

    # -- read ----------------------------------------

    async def _read(self, question: ReadQuestion) -> dict[str, Any]:
        names = question.devices or [name for name in self._devices if self._may_read(name)]
        for name in names:
            check_read(name, self._devices, self._may_read)
        if question.devices is None:
            names = [name for name in names if not self._devices[name].driver_class.bytes_side]
        answers = await asyncio.gather(*(self._read_one(name) for name in names))
        readings = [as_json(answer) for answer in answers if isinstance(answer, Reading)]
        faults = [answer for answer in answers if isinstance(answer, str)]
        if faults and (not readings or question.devices is not None):
            error = {"code": "device_offline", "message": "; ".join(faults)}
            return {"state": "failed", "readings": readings, "error": error}
        return {"state": "done", "readings": readings}

    async def _read_one(self, name: str) -> Reading | str:
        try:
            async with asyncio.timeout(READ_LIMIT_S):
                return await self._devices[name].read_now()
        except TimeoutError:
            return f"device {name} did not answer within {READ_LIMIT_S:g} s"
        except (BusError, DriverError) as error:
            return str(error)

    def _may_read(self, name: str) -> bool:
        return may(self._config.access, "read", self.actor, name)

    # -- set, do, describe ----------------------------------------

    async def _command(self, command: Set | Do, for_s: float | None) -> dict[str, Any]:
        ack = await self._commander.execute(
            command, self.actor, age_ms=self._age_ms(), for_s=for_s, take=self._take_file
        )
        result: dict[str, Any] = {"state": ack["state"], "ack": ack}
        if "error" in ack:
            result["error"] = ack["error"]
        return result

    def _age_ms(self) -> float | None:
        """How long ago it was asked: what waited out an outage must not move anything now."""
        server_ms, sent_ms = self.link.server_ms(), self.link.start.sent_ms
        return None if server_ms is None or sent_ms is None else max(0.0, server_ms - sent_ms)

    def _take_file(self, file: File) -> None:
        self._more = "file", file

    def _describe(self) -> list[dict[str, Any]]:
        return [describe(device) for name, device in self._devices.items() if self._may_read(name)]


def as_json(reading: Reading) -> dict[str, Any]:
    """A reading as a result has it."""
    members: dict[str, Any] = {"device": reading.device, "at": reading.at_ms, "values": dict(reading.values)}
    if reading.flags:
        members["flags"] = dict(reading.flags)
    if not reading.clock_set:
        members["clock"] = "unset"
    return members


def describe(device: Device) -> dict[str, Any]:
    """A device as a caller may know it: points, actions, health."""
    points = []
    for point in device.points.values():
        entry: dict[str, Any] = {"name": point.name, "type": point.type, "write": point.write}
        optional = {
            "unit": point.unit or None,
            "low": point.low,
            "high": point.high,
            "minimum": point.minimum,
            "maximum": point.maximum,
            "description": point.description or None,
        }
        entry.update({key: value for key, value in optional.items() if value is not None})
        if point.write:
            entry["safe"] = device.safe_values.get(point.name)
        points.append(entry)
    actions = [
        {
            "name": action.name,
            "moves": action.moves,
            **({"gives": action.gives} if action.gives else {}),
            "arguments": [
                {"name": a.name, "type": a.type, "unit": a.unit, "required": a.required}
                for a in action.arguments
            ],
        }
        for action in device.driver_class.actions
    ]
    described: dict[str, Any] = {"device": device.name, "state": device.state, "points": points}
    if actions:
        described["actions"] = actions
    if device.period_s is not None:
        described["every_s"] = device.period_s
    return described
