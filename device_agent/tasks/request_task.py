"""Request tasks: answered with a `result` artifact and a terminal event (docs/events.md)."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from device_agent.commands.authorization import Actor, check_read, may
from device_agent.commands.delegation_action import describe_delegation
from device_agent.commands.plan import Send
from device_agent.devices.description import describe
from device_agent.devices.device import Device
from device_agent.errors import AgentError, BusError, DriverError, Fault, NetworkError, Refused, Rejected
from device_agent.messages.acks import Ack
from device_agent.messages.commands import Do, Set, Stop
from device_agent.messages.events import reading_members
from device_agent.messages.requests import (
    FILE_ID,
    FILE_MAX_BYTES,
    HISTORY_ID,
    DescribeRequest,
    DoRequest,
    HistoryRequest,
    ReadRequest,
    Request,
    SetRequest,
    StopRequest,
    asks_for_stop,
    parse_request,
)
from device_agent.network import Part, TaskLink
from device_agent.records import File, Reading
from device_agent.tasks.progress import Progress
from device_agent.tasks.result_delivery import ResultDelivery, ResultFile, TaskResult
from device_agent.tasks.services import Services

# A device that does not answer must not hold a request, which a person waits for.
READ_LIMIT_S = 15.0
# A slow port takes this much within its bus's time limit; a cancel waits for no more than that.
SEND_BYTES = 256
# The network ends a task at `max_running_s`; the answer is to be out before that.
RESERVE_S = 10.0
# How long the first task of all waits for the network's time.
TIME_LIMIT_S = 5.0


class RequestTask:
    """One request task. `run` ends with its terminal; who cancels it sees to the terminal."""

    def __init__(self, services: Services, link: TaskLink, delivery: ResultDelivery) -> None:
        self.link = link
        self.task_id = link.start.task_id
        self.actor = Actor(
            f"task:{self.task_id}", f"request {self.task_id[:8]}", link.start.caller, "request"
        )
        self._config = services.config
        self._devices = services.devices
        self._executor = services.executor
        self._history_service = services.history_service
        self._delivery = delivery
        self._progress = Progress(link, services.outbox, services.clock)

    def __repr__(self) -> str:
        return f"<RequestTask {self.task_id}>"

    async def run(self) -> None:
        """Carry out the request: artifacts first, then the terminal."""
        # A broadcast's answers would write to one channel, and a stop waits for no stream.
        if self._config.agent.instances and not asks_for_stop(self.link.start.parts):
            await self._progress.open()
        result = await self._result()
        self._progress.report(result.state, last=True)
        await self.deliver(result)

    async def close(self) -> None:
        """End what is open still, of a task that was cut off."""
        await self._progress.close()

    async def deliver(self, result: TaskResult) -> None:
        """Send what is left of a result, perhaps an earlier process's, and the terminal."""
        try:
            await self._delivery.send(self.link, result, self._progress.report)
        except NetworkError as error:
            self.link.terminal("failed", error=f"internal: the result could not be delivered: {error}")
            return
        finally:
            await self._progress.close()
        if result.state == "done":
            self.link.terminal("completed")
        else:
            fault = result.error or Fault("internal", result.state)
            self.link.terminal("failed", error=f"{fault.code}: {fault.message}")

    async def _result(self) -> TaskResult:
        max_s = self._config.agent.max_running_s
        limit_s = max_s - min(RESERVE_S, max_s / 4)
        limit = asyncio.timeout(limit_s)
        op = "unknown"
        try:
            async with limit:
                takes_file = any(device.driver_class.takes_bytes() for device in self._devices.values())
                request, file = parse_request(self.link.start.parts, takes_file=takes_file)
                op = request.op
                return await self._carry_out(request, file)
        except Rejected as rejected:
            return TaskResult(op, "rejected", error=rejected.fault)
        except (BusError, DriverError) as error:
            return TaskResult(op, "failed", error=Fault("device_offline", str(error)))
        except (AgentError, OSError) as error:
            if not limit.expired():
                return TaskResult(op, "failed", error=Fault("internal", str(error)))
            # A driver that hangs holds its bus, never the task.
            message = f"the work was not done within {limit_s:g} s (by agent.max_running_s)"
            state = "unknown" if op in ("set", "do", "stop") else "failed"
            return TaskResult(op, state, error=Fault("internal", message))
        finally:
            self._executor.request_ends(self.actor.holder)

    async def _carry_out(self, request: Request, file: Part | None) -> TaskResult:
        match request:
            case ReadRequest():
                return await self._read(request)
            case SetRequest():
                return await self._set(request)
            case DoRequest():
                return await self._do(request, file)
            case HistoryRequest():
                return await self._history(request)
            case StopRequest():
                ack = await self._executor.stop(Stop(kind="stop", id=self._command_id), self.actor)
                return _acknowledged(request.op, ack)
            case DescribeRequest():
                return TaskResult(request.op, "done", {"devices": self._describe()})

    # -- read, history, describe ----------------------------------------

    async def _read(self, request: ReadRequest) -> TaskResult:
        names = request.devices or [name for name in self._devices if self._may_read(name)]
        for name in names:
            check_read(name, self._devices, self._may_read)
        if request.devices is None:
            names = [name for name in names if not self._devices[name].driver_class.bytes_side]
        with self._progress.during("reading"):
            answers = await asyncio.gather(*(self._read_one(name) for name in names))
        readings = [reading_members(answer) for answer in answers if isinstance(answer, Reading)]
        faults = {
            name: answer for name, answer in zip(names, answers, strict=True) if isinstance(answer, str)
        }
        content: dict[str, Any] = {"readings": readings}
        if faults:
            content["unavailable"] = [{"device": name, "reason": why} for name, why in faults.items()]
        if faults and (not readings or request.devices is not None):
            message = "; ".join(faults.values())
            return TaskResult(request.op, "failed", content, Fault("device_offline", message))
        return TaskResult(request.op, "done", content)

    async def _read_one(self, name: str) -> Reading | str:
        """A reading, or why there is none."""
        try:
            async with asyncio.timeout(READ_LIMIT_S):
                return await self._devices[name].read_now()
        except TimeoutError:
            return f"device {name} did not answer within {READ_LIMIT_S:g} s"
        except (BusError, DriverError) as error:
            return str(error)

    def _may_read(self, name: str) -> bool:
        return may(self._config.access, "read", self.actor, name)

    async def _history(self, request: HistoryRequest) -> TaskResult:
        out = self._delivery.folder(self.task_id) / HISTORY_ID
        with self._progress.during("reading the record"):
            answer = await self._history_service.answer(request, self._may_read, out=out)
        file = ResultFile(HISTORY_ID, answer.file_name, answer.mime_type, answer.data)
        return TaskResult(request.op, "done", answer.result, files=[file])

    def _describe(self) -> list[dict[str, Any]]:
        devices = [describe(device) for name, device in self._devices.items() if self._may_read(name)]
        access = self._config.access
        actions = [
            action
            for name, action in self._executor.delegation_actions.items()
            if self._may_read(name) or may(access, "drive", self.actor, name)
        ]
        return [*devices, *map(describe_delegation, actions)]

    # -- set, do ----------------------------------------

    @property
    def _command_id(self) -> str:
        """A task begins once, so its id serves as its command's."""
        return f"task:{self.task_id}"[:200]

    async def _set(self, request: SetRequest) -> TaskResult:
        command = Set(
            kind="set",
            id=self._command_id,
            device=request.device,
            values=request.values,
            dry_run=request.dry_run,
        )
        with self._progress.during(f"setting {request.device}"):
            return await self._command(command, for_s=request.for_s)

    async def _do(self, request: DoRequest, file: Part | None) -> TaskResult:
        command = Do(
            kind="do",
            id=self._command_id,
            device=request.device,
            action=request.action,
            args=request.args,
            dry_run=request.dry_run,
        )
        send: Send | None = None
        if file is not None and not request.dry_run:
            # A file may take long to come; what waits for it has a limit of its own.
            command = replace(command, ttl_ms=self._config.agent.max_running_s * 1000)
            send = await self._fetch(command, file)
        with self._progress.during(f"{request.action} of {request.device}"):
            return await self._command(command, send=send)

    async def _command(
        self, command: Set | Do, *, for_s: float | None = None, send: Send | None = None
    ) -> TaskResult:
        files: list[ResultFile] = []

        def take(file: File) -> None:
            files.append(ResultFile(FILE_ID, file.name, file.mime_type, file.data))

        if command.dry_run:
            ack = self._executor.dry_run(command, self.actor, for_s=for_s)
        else:
            ack = await self._executor.execute(
                command, self.actor, age_ms=await self._age_ms(), for_s=for_s, on_file=take, send=send
            )
        return _acknowledged(command.kind, ack, files)

    async def _fetch(self, command: Do, file: Part) -> Send:
        """Fetch the caller's file, if the command would be carried out now; returns what sends it."""
        preview = self._executor.preview(command, self.actor)
        if preview.error is not None:
            raise Rejected(preview.error.code, preview.error.message)
        path = self._delivery.folder(self.task_id) / FILE_ID
        try:
            with self._progress.during("fetching the file"):
                await self.link.fetch(file, path, FILE_MAX_BYTES)
        except Refused as refused:
            raise Rejected("invalid_value", f"{FILE_ID}: {refused}") from None
        size_bytes = path.stat().st_size

        async def send(device: Device) -> None:
            sent_bytes = 0
            with path.open("rb") as file:
                while chunk := file.read(SEND_BYTES):
                    await device.send_bytes(chunk)
                    sent_bytes += len(chunk)
                    self._progress.report(f"sent {sent_bytes} of {size_bytes} bytes", sent_bytes / size_bytes)

        return send

    async def _age_ms(self) -> float | None:
        """How long ago the caller sent it: what waited out an outage must not move anything now.

        The network's time is learned from its answer to the event `running`, which is under way.
        """
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.link.until_time(), TIME_LIMIT_S)
        server_ms, sent_ms = self.link.server_ms(), self.link.start.sent_ms
        return None if server_ms is None or sent_ms is None else max(0.0, server_ms - sent_ms)


def _acknowledged(op: str, ack: Ack, files: Sequence[ResultFile] = ()) -> TaskResult:
    return TaskResult(op, ack.state.value, {"ack": ack.members()}, ack.error, [*files])
