"""Request tasks: answered with a `result` artifact and a terminal event (docs/events.md)."""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

import structlog

from device_agent.clock import Clock
from device_agent.commands.authorization import Actor, check_read, may
from device_agent.commands.delegation_action import describe_delegation
from device_agent.commands.executor import CommandExecutor
from device_agent.commands.plan import Send
from device_agent.config import Config
from device_agent.devices.description import describe
from device_agent.devices.device import Device
from device_agent.errors import AgentError, BusError, DriverError, Fault, NetworkError, Refused, Rejected
from device_agent.history.history_service import HistoryService
from device_agent.messages.acks import Ack
from device_agent.messages.commands import Do, Set, Stop
from device_agent.messages.events import reading_members
from device_agent.messages.requests import (
    FILE_ID,
    FILE_MAX_BYTES,
    HISTORY_ID,
    DoRequest,
    HistoryRequest,
    ReadRequest,
    SetRequest,
    StopRequest,
    parse_request,
)
from device_agent.network import Part, TaskLink
from device_agent.records import File, Reading
from device_agent.store.outbox.outbox import Outbox
from device_agent.tasks.pipe_session import stream_id
from device_agent.tasks.progress import Progress
from device_agent.tasks.result_delivery import ResultDelivery, ResultFile, TaskResult

log = structlog.get_logger("request")

# A device that does not answer must not hold a request, which a person waits for (W18).
READ_LIMIT_S = 15.0
# A slow port takes this much within its bus's time limit; a cancel waits for no more than that.
SEND_BYTES = 256
RESERVE_S = 10.0
# How long the first task of all waits for the network's time.
TIME_LIMIT_S = 5.0


class RequestTask:
    """One request task. `run` ends with its terminal; who cancels it sees to the terminal."""

    def __init__(
        self,
        link: TaskLink,
        config: Config,
        devices: Mapping[str, Device],
        executor: CommandExecutor,
        history_service: HistoryService,
        deliveries: ResultDelivery,
        outbox: Outbox,
        clock: Clock,
    ) -> None:
        self.link = link
        task_id = link.start.task_id
        self.actor = Actor(task_id, f"request {task_id[:8]}", link.start.caller, "request")
        self._config = config
        self._devices = devices
        self._executor = executor
        self._history_service = history_service
        self._deliveries = deliveries
        self._progress = Progress(link, outbox, clock, stream_id(link.start, 0))
        self._pieces: list[ResultFile] = []
        self._op = "unknown"

    async def run(self) -> None:
        """Answer the request: artifacts first, then the terminal."""
        if self._config.agent.instances:  # a broadcast's answers would write to one channel
            await self._progress.open()
        result = await self._result()
        self._progress.say(result["state"], last=True)
        await self.deliver(TaskResult(result, self._pieces))

    async def close(self) -> None:
        """End what is open still, of a task that was cut off."""
        await self._progress.close()

    async def deliver(self, parcel: TaskResult) -> None:
        """What is left of the answer, perhaps from an earlier process, and the terminal."""
        try:
            await self._deliveries.send(self.link, parcel, self._progress.say)
        except NetworkError as error:
            self.link.terminal("failed", error=f"internal: the result could not be delivered: {error}")
            return
        finally:
            await self._progress.close()
        if parcel.result["state"] == "done":
            self.link.terminal("completed")
        else:
            told = parcel.result.get("error")
            fault = Fault.from_members(told) if told else Fault("internal", parcel.result["state"])
            self.link.terminal("failed", error=f"{fault.code}: {fault.message}")

    async def _result(self) -> dict[str, Any]:
        limit_s = self._config.agent.max_running_s - self._reserve_s()
        time = asyncio.timeout(limit_s)
        try:
            async with time:
                takes_file = any(device.driver_class.takes_bytes() for device in self._devices.values())
                request, part = parse_request(self.link.start.parts, takes_file=takes_file)
                self._op = request.op
                result = await self._answer(request, part)
        except Rejected as rejected:
            result = _failed("rejected", rejected.fault)
        except (BusError, DriverError) as error:
            result = _failed("failed", Fault("device_offline", str(error)))
        except (AgentError, OSError) as error:
            if time.expired():
                # A driver that hangs holds its bus, never the task (W18).
                result = self._too_long(limit_s)
            else:
                result = _failed("failed", Fault("internal", str(error)))
        finally:
            self._executor.request_ends(self.actor.holder)
        return {"op": self._op, **result}

    def _reserve_s(self) -> float:
        """The network ends the task at `max_running_s`; the answer is to be out before that."""
        return min(RESERVE_S, self._config.agent.max_running_s / 4)

    def _too_long(self, limit_s: float) -> dict[str, Any]:
        message = f"the work was not done within {limit_s:g} s (by agent.max_running_s)"
        state = "unknown" if self._op in ("set", "do", "stop") else "failed"
        return _failed(state, Fault("internal", message))

    async def _answer(self, request: Any, part: Part | None) -> dict[str, Any]:
        match request:
            case ReadRequest():
                return await self._read(request)
            case SetRequest():
                command = Set(
                    kind="set",
                    id=self._id(),
                    device=request.device,
                    values=request.values,
                    dry_run=request.dry_run,
                )
                with self._progress.during(f"setting {request.device}"):
                    return await self._command(command, request.for_s)
            case DoRequest():
                return await self._do(request, part)
            case HistoryRequest():
                return await self._history(request)
            case StopRequest():
                return _answered(await self._executor.stop(Stop(kind="stop", id=self._id()), self.actor))
            case _:
                return {"state": "done", "devices": self._describe()}

    async def _history(self, request: HistoryRequest) -> dict[str, Any]:
        out = self._deliveries.folder(self.link.start.task_id) / HISTORY_ID
        with self._progress.during("reading the record"):
            answer = await self._history_service.answer(request, self._may_read, out=out)
        self._pieces = [ResultFile(HISTORY_ID, answer.file_name, answer.mime_type, answer.data)]
        return {"state": "done", **answer.result}

    def _id(self) -> str:
        """A task is asked for once, so its id serves as the command's."""
        return f"task:{self.link.start.task_id}"[:200]

    # -- read ----------------------------------------

    async def _read(self, request: ReadRequest) -> dict[str, Any]:
        names = request.devices or [name for name in self._devices if self._may_read(name)]
        for name in names:
            check_read(name, self._devices, self._may_read)
        if request.devices is None:
            names = [name for name in names if not self._devices[name].driver_class.bytes_side]
        with self._progress.during("reading"):
            answers = await asyncio.gather(*(self._read_one(name) for name in names))
        readings = [reading_members(answer) for answer in answers if isinstance(answer, Reading)]
        faults = [answer for answer in answers if isinstance(answer, str)]
        if faults and (not readings or request.devices is not None):
            error = Fault("device_offline", "; ".join(faults))
            return {"state": "failed", "readings": readings, "error": error.members()}
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

    async def _do(self, request: DoRequest, part: Part | None) -> dict[str, Any]:
        command = Do(
            kind="do",
            id=self._id(),
            device=request.device,
            action=request.action,
            args=request.args,
            dry_run=request.dry_run,
        )
        send: Send | None = None
        if part is not None and not request.dry_run:
            # Its file may be long under way; what it waits for has a limit of its own.
            command = command.model_copy(update={"ttl_ms": self._config.agent.max_running_s * 1000})
            send = await self._incoming(command, part)
        with self._progress.during(f"{request.action} of {request.device}"):
            return await self._command(command, None, send)

    async def _incoming(self, command: Do, part: Part) -> Send:
        """The caller's file, fetched; what is left is to send it. Nothing is fetched for nothing."""
        check = self._executor.preview(command, self.actor)
        if check.error is not None:
            raise Rejected(check.error.code, check.error.message)
        path = self._deliveries.folder(self.link.start.task_id) / FILE_ID
        try:
            with self._progress.during("fetching the file"):
                await self.link.fetch(part, path, FILE_MAX_BYTES)
        except Refused as refused:
            raise Rejected("invalid_value", f"{FILE_ID}: {refused}") from None

        async def send(device: Device) -> None:
            size_bytes, sent_bytes = path.stat().st_size, 0
            with path.open("rb") as file:
                while chunk := file.read(SEND_BYTES):
                    await device.send_bytes(chunk)
                    sent_bytes += len(chunk)
                    self._progress.say(f"sent {sent_bytes} of {size_bytes} bytes", sent_bytes / size_bytes)

        return send

    async def _command(
        self, command: Set | Do, for_s: float | None, send: Send | None = None
    ) -> dict[str, Any]:
        if command.dry_run:
            ack = self._executor.preview(command, self.actor)
        else:
            ack = await self._executor.execute(
                command, self.actor, age_ms=await self._age_ms(), for_s=for_s, take=self._take_file, send=send
            )
        return _answered(ack)

    async def _age_ms(self) -> float | None:
        """How long ago it was asked: what waited out an outage must not move anything now.

        The network's time is told by its answer to the event `running`, which is under way.
        """
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.link.until_time(), TIME_LIMIT_S)
        server_ms, sent_ms = self.link.server_ms(), self.link.start.sent_ms
        return None if server_ms is None or sent_ms is None else max(0.0, server_ms - sent_ms)

    def _take_file(self, file: File) -> None:
        self._pieces = [ResultFile(FILE_ID, file.name, file.mime_type, file.data)]

    def _describe(self) -> list[dict[str, Any]]:
        devices = [describe(device) for name, device in self._devices.items() if self._may_read(name)]
        access = self._config.access
        asked = [
            action
            for name, action in self._executor.questions.items()
            if self._may_read(name) or may(access, "drive", self.actor, name)
        ]
        return [*devices, *map(describe_delegation, asked)]


def _failed(state: str, fault: Fault) -> dict[str, Any]:
    return {"state": state, "error": fault.members()}


def _answered(ack: Ack) -> dict[str, Any]:
    """What became of a command, as a result has it."""
    result: dict[str, Any] = {"state": ack.state.value, "ack": ack.members()}
    if ack.error is not None:
        result["error"] = ack.error.members()
    return result
