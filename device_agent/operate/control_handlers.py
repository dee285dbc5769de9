"""What the owner may ask the running daemon through the control socket."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from device_agent import __version__
from device_agent.commands.control_side import ControlSide
from device_agent.commands.delegation_action import describe_delegation
from device_agent.devices.description import describe
from device_agent.devices.device import Device
from device_agent.history.history_service import HistoryService
from device_agent.messages.events import reading_members
from device_agent.messages.requests import HistoryRequest
from device_agent.network.blocks.network import BlocksNetwork
from device_agent.operate.control_socket import Handler
from device_agent.operate.local_handlers import OWNER, LocalHandlers
from device_agent.store.mounts import in_memory
from device_agent.store.store_thread import written_bytes
from device_agent.tasks.manager import TaskManager

# What the control socket carries and how long it waits, with room to spare.
HISTORY_MAX_BYTES = 3_500_000
HISTORY_LIMIT_S = 50.0
DAY_S = 86_400


class DiskUse:
    """What this process has written to disks, all of it, and what a day of that amounts to."""

    def __init__(self, state: Path) -> None:
        self._began_s = time.monotonic()
        self._in_memory = in_memory(state.resolve())

    def figures(self) -> dict[str, Any]:
        """`in_memory` says why the state directory does not outlive a reboot; "" if it does."""
        written, since_s = written_bytes("self"), time.monotonic() - self._began_s
        a_day = round(written / max(since_s, 1.0) * DAY_S)
        figures = {"written_bytes": written, "since_s": round(since_s), "written_bytes_a_day": a_day}
        return {**figures, "in_memory": self._in_memory}


class ControlHandlers(LocalHandlers):
    """Handlers by op, of the running daemon."""

    def __init__(
        self,
        control: ControlSide,
        tasks: TaskManager,
        network: BlocksNetwork,
        history_service: HistoryService,
        figures: Mapping[str, Callable[[], Any]],
    ) -> None:
        """`figures` are further members of `status`."""
        super().__init__(control)
        self._agent_name = control.config.agent.name
        self._tasks = tasks
        self._network = network
        self._history_service = history_service
        self._figures = figures

    def _by_op(self) -> dict[str, Handler]:
        return {
            **super()._by_op(),
            "status": self.status,
            "describe": self.describe,
            "history": self.history,
            "history_flush": self.history_flush,
        }

    async def status(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Link, sessions, devices, outbox, safe states."""
        network, identity = self._network, self._network.file.identity
        devices = []
        for name, device in self.readable(question).items():
            entry: dict[str, Any] = {"device": name, "state": device.state, "readings": device.readings}
            if not device.online:
                entry |= {"reason": device.reason, "detail": device.detail}
            if notes := device.notes:
                entry["notes"] = notes
            if device.latest is not None:
                entry["latest"] = reading_members(device.latest)
            devices.append({**entry, **self._driven(device, question)})
        return {
            "agent": self._agent_name,
            "version": __version__,
            "instance": identity.instance_id,
            "link": {
                "state": network.membership.state,
                "joined": network.membership.joined,
                "up": network.connectivity.serves,
                "losses": network.connectivity.losses,
                "trouble": network.trouble,
                "blind": network.blind,
            },
            "clock": {"set": network.clock.is_set(), "source": network.clock.source},
            "sessions": [
                {
                    "task": task_id,
                    "who": session.actor.recorded,
                    "remaining_s": round(session.remaining_s()),
                    "streams": sorted(session.streams),
                }
                for task_id, session in self._tasks.sessions.items()
            ],
            "requests": len(self._tasks.requests),
            "commands": [
                {"state": state, "code": code, "count": count}
                for (state, code), count in self._executor.answers.items()
            ],
            **{name: figures() for name, figures in self._figures.items()},
            "devices": devices,
        }

    def _driven(self, device: Device, question: Mapping[str, Any]) -> dict[str, Any]:
        """Of an actuator: whether it is at its safe value, else who drives it, since when, until when."""
        limits, now_s = self._safe_states.limits.get(device.name), self._network.clock.monotonic_s()
        if limits is None:
            return {}
        # Nobody knows it of one that was never opened, or is gone.
        entry: dict[str, Any] = {"at_safe": not limits.away if device.online or limits.away else None}
        if who := self._driver(device.name, now_s, owner="as" not in question):
            entry["driven_by"] = who
        if (left_s := limits.left_safe_s()) is not None:
            entry["away_s"] = round(now_s - left_s)
        if (deadline_s := limits.deadline_s()) is not None:
            entry["safe_in_s"] = max(0, round(deadline_s - now_s))
        return entry

    def _driver(self, device: str, now_s: float, *, owner: bool) -> str:
        """Who has the lease, or drove it last and still may. Which caller it is, the owner alone is told."""
        lease = self._executor.leases.holder(device, now_s)
        holder = lease.holder if lease is not None else self._safe_states.driver(device) or ""
        session = self._tasks.sessions.get(holder.removeprefix("task:"))
        if session is not None and owner:
            return session.actor.recorded
        return lease.label if lease is not None else OWNER.label if holder == OWNER.holder else ""

    async def describe(self, question: Mapping[str, Any]) -> list[dict[str, Any]]:
        devices = [describe(device) for device in self.readable(question).values()]
        return [*devices, *map(describe_delegation, self._executor.delegation_actions.values())]

    async def history(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """The history (docs/events.md); `data` holds the readings."""
        asked = HistoryRequest.read({k: v for k, v in question.items() if k != "as"})
        answer = await self._history_service.answer(
            asked,
            self.readable(question).__contains__,
            limit_bytes=HISTORY_MAX_BYTES,
            limit_s=HISTORY_LIMIT_S,
        )
        return {**answer.result, "data": answer.data}

    async def history_flush(self, question: Mapping[str, Any]) -> None:
        """What is in memory goes to the file, for who reads that."""
        if self._history_service.history is not None:
            await self._history_service.history.flush()
