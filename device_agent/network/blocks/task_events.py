"""The events of one task on its task channel: in order, stored, repeated until accepted (docs/protocol.md).

The official runtime publishes once and ignores failures (W12); here a terminal that an outage held up is
sent when the outage ends.
"""

import asyncio
import base64
import json
from collections import deque
from typing import Any

import structlog

from device_agent.clock import Clock
from device_agent.errors import NetworkError, Refused, TokenRefused, sentence
from device_agent.network import StartTask, TerminalState
from device_agent.network.blocks.clients import TaskClients
from device_agent.network.blocks.wire import PROTOCOL_VERSION, event_meta, task_channel, task_event
from device_agent.network.connectivity import Connectivity, NetworkBackoff

log = structlog.get_logger("task")

# A caller that has just sent its message may not listen yet for about two round trips (docs/protocol.md).
# What must not be missed waits this long after the task began; `running` goes out at once.
SETTLE_S = 1.0
# A terminal that comes earlier than this is sent a second time; a caller that had the first ignores it.
EARLY_TERMINAL_S = 3.0
PROGRESS_INTERVAL_S = 1.0
# Artifacts and a terminal; progress sentences replace each other. A task that queues more is at fault.
QUEUE_MAX = 64
# A refusal that no token cures is repeated for about an hour of full back-off, then the event is given up.
REFUSALS_MAX = 100


class TaskEvents:
    """Publisher of one task's events. `run` publishes them, and ends after the terminal was accepted."""

    def __init__(
        self,
        agent_name: str,
        start: StartTask,
        clients: TaskClients,
        connectivity: Connectivity,
        clock: Clock,
    ) -> None:
        self._task_id = start.task_id
        self._channel = task_channel(start.org, start.task_id)
        self._meta = event_meta(agent_name, start.task_id)
        self._clients = clients
        self._clock = clock
        self._backoff = NetworkBackoff(connectivity)
        self._queue: deque[tuple[dict[str, Any], asyncio.Future[None] | None]] = deque()
        self._progress = ""
        self._progress_at_s = -PROGRESS_INTERVAL_S
        self._wake = asyncio.Event()
        self._began_s = clock.monotonic_s()
        self._ended = False

    def __repr__(self) -> str:
        return f"<TaskEvents of {self._task_id}: {len(self._queue)} queued{', ended' if self._ended else ''}>"

    # -- what the task publishes ----------------------------------------------------------------------------

    def running(self) -> None:
        self._put(task_event(self._task_id, "progress", progress=0, state="running"))

    def progress(self, message: str) -> None:
        self._progress = sentence(message)
        self._wake.set()

    def system(self, status: str) -> None:
        self._put(task_event(self._task_id, "system", status=status))

    async def artifact(self, data: bytes, mime_type: str, output_id: str, file_name: str) -> None:
        """An inline artifact; returns when the network has it. Raises Refused while too many events wait."""
        reference = {
            "kind": "inline",
            "mimeType": mime_type,
            "size": len(data),
            "data": base64.b64encode(data).decode(),
            "fileName": file_name,
        }
        event = task_event(self._task_id, "artifact", artifactRef=reference, outputId=output_id)
        sent = asyncio.get_running_loop().create_future()
        self._put(event, sent)
        await sent

    def terminal(self, state: TerminalState, *, version: str = PROTOCOL_VERSION, **members: str) -> None:
        """The end, with `error`, `reason` and `completionReason`. Only the first call counts."""
        if not self._ended:
            self._ended = True
            said = {name: sentence(text) for name, text in members.items()}
            self._put(task_event(self._task_id, "terminal", version=version, state=state, **said))

    def _put(self, event: dict[str, Any], sent: "asyncio.Future[None] | None" = None) -> None:
        if len(self._queue) >= QUEUE_MAX and event["type"] != "terminal":
            raise Refused(f"task {self._task_id}: {QUEUE_MAX} events wait for the network already")
        self._queue.append((event, sent))
        self._wake.set()

    # -- publishing -----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Publish until the terminal is accepted; nothing that comes after it goes out."""
        while True:
            await self._until_due()
            if self._queue:
                event, sent = self._queue[0]
                if event["type"] != "progress":
                    await self.settled()
                await self._deliver(event)
                self._queue.popleft()
                if sent is not None and not sent.done():
                    sent.set_result(None)
                if event["type"] == "terminal":
                    await self._repeat_early(event)
                    return
            elif self._progress:
                message, self._progress = self._progress, ""
                self._progress_at_s = self._clock.monotonic_s()
                await self._deliver(task_event(self._task_id, "progress", message=message))

    async def settled(self) -> None:
        """Returns when the caller can be expected to listen."""
        await asyncio.sleep(max(0.0, self._began_s + SETTLE_S - self._clock.monotonic_s()))

    async def _until_due(self) -> None:
        while not self._queue:
            self._wake.clear()
            wait_s: float | None = None
            if self._progress:
                wait_s = self._progress_at_s + PROGRESS_INTERVAL_S - self._clock.monotonic_s()
                if wait_s <= 0:
                    return
            try:
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _deliver(self, event: dict[str, Any]) -> None:
        body = json.dumps(event, separators=(",", ":")).encode()
        refusals = switches = 0
        while True:
            client = self._clients.current
            try:
                await client.publish(self._channel, body, store=True, meta=self._meta)
            except NetworkError as error:
                if isinstance(error, TokenRefused):
                    self._clients.refused(client)
                    switches += 1
                    if switches % 2:
                        continue  # with the other token, at once
                refusals += isinstance(error, Refused)
                if refusals >= REFUSALS_MAX:
                    log.error("task_event_given_up", task=self._task_id, type=event["type"], error=str(error))
                    return
                await self._backoff.wait(error)
            else:
                self._backoff.reset()
                return

    async def _repeat_early(self, event: dict[str, Any]) -> None:
        remaining_s = self._began_s + EARLY_TERMINAL_S - self._clock.monotonic_s()
        if remaining_s > 0:
            await asyncio.sleep(remaining_s)
            await self._deliver(event)
