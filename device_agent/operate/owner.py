"""What the owner may ask the running daemon through the control socket."""

import time
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from device_agent import __version__
from device_agent.authority import LOCAL, Actor
from device_agent.commander import Commander
from device_agent.config import Config
from device_agent.device import Device
from device_agent.errors import Rejected
from device_agent.hardware import Hardware
from device_agent.history.ask import Historian, HistoryQuestion
from device_agent.network import Caller
from device_agent.network.blocks.network import BlocksNetwork
from device_agent.operate.control_socket import Handler
from device_agent.requests import as_json, describe
from device_agent.runtime import Tasks
from device_agent.safety.guard_keeper import GuardKeeper
from device_agent.safety.keeper import Keeper
from device_agent.safety.stop import EmergencyStop
from device_agent.store.journal import Journal
from device_agent.store.lanes import Lanes
from device_agent.words import parse, sentence

SAFE_LIMIT_S = 5.0
# What the control socket carries and how long it waits, with room to spare.
HISTORY_MAX_BYTES = 3_500_000
HISTORY_LIMIT_S = 50.0
OWNER = Actor(LOCAL, "the owner, on the device", Caller())


class Owner:
    """Handlers by op. The owner needs no access rule; leases and limits bind him as anybody."""

    def __init__(
        self,
        config: Config,
        devices: Mapping[str, Device],
        commander: Commander,
        keeper: Keeper,
        tasks: Tasks,
        network: BlocksNetwork,
        lanes: Lanes,
        journal: Journal,
        guard: GuardKeeper,
        historian: Historian,
        stop: EmergencyStop,
        hardware: Hardware,
    ) -> None:
        self._config = config
        self._devices = devices
        self._commander = commander
        self._keeper = keeper
        self._tasks = tasks
        self._network = network
        self._lanes = lanes
        self._journal = journal
        self._guard = guard
        self._historian = historian
        self._stop = stop
        self._hardware = hardware

    def handlers(self) -> dict[str, Handler]:
        return {
            "status": self.status,
            "read": self.read,
            "set": self.command,
            "do": self.command,
            "safe": self.safe,
            "estop": self.estop,
            "release": self.release,
            "describe": self.describe,
            "journal": self.journal,
            "verify": self.verify,
            "history": self.history,
            "history_flush": self.history_flush,
        }

    async def status(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Link, sessions, devices, outbox, safe states."""
        network, identity = self._network, self._network.file.identity
        devices = []
        for name, device in self._devices.items():
            entry: dict[str, Any] = {"device": name, "state": device.state}
            if not device.online:
                entry |= {"reason": device.reason, "detail": device.detail}
            if device.latest is not None:
                entry["latest"] = as_json(device.latest)
            if name in self._keeper.limits:
                entry["at_safe"] = not self._keeper.limits[name].away
            devices.append(entry)
        history = self._historian.history
        return {
            "agent": self._config.agent.name,
            "version": __version__,
            "instance": identity.instance_id,
            "link": {
                "joined": network.joined.is_set(),
                "up": network.link.up,
                "losses": network.link.losses,
                "trouble": network.trouble,
            },
            "clock": {"set": network.clock.is_set(), "source": network.clock.source},
            "sessions": [
                {
                    "task": task_id,
                    "remaining_s": round(session.remaining_s()),
                    "streams": sorted(session.ports),
                }
                for task_id, session in self._tasks.sessions.items()
            ],
            "requests": len(self._tasks.requests),
            "outbox": self._lanes.figures(),
            "history": None if history is None else history.figures(),
            "guard": self._guard.status(),
            "emergency_stop": self._stop.status(),
            "buses": self._hardware.figures(),
            "devices": devices,
        }

    async def read(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """A fresh reading of one device."""
        return as_json(await self._device(question).read_now())

    async def command(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """A `set` or `do` of design section 4; the id may be left out. With `dry_run` nothing moves."""
        event = {name: value for name, value in question.items() if name not in ("op", "dry_run")}
        event["kind"] = question["op"]
        event.setdefault("id", f"local-{time.time_ns()}")
        word = parse(event)
        if question.get("dry_run"):
            return self._commander.would(word, OWNER)  # type: ignore[arg-type]
        return await self._commander.execute(word, OWNER, age_ms=0.0)  # type: ignore[arg-type]

    async def safe(self, question: Mapping[str, Any]) -> dict[str, bool]:
        """Every actuator to its safe state, now."""
        return await self._keeper.all_safe("asked by the owner", SAFE_LIMIT_S)

    async def estop(self, question: Mapping[str, Any]) -> dict[str, bool]:
        """The emergency stop: safe at once, and latched."""
        return await self._stop.press(OWNER.label)

    async def release(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """End the emergency stop; only here, on the spot."""
        await self._stop.release(OWNER.label)
        return self._stop.status()

    async def describe(self, question: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [describe(device) for device in self._devices.values()]

    async def verify(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Whether the Journal's chain fits (`store.chain.verify`)."""
        return await self._journal.verify()

    async def journal(self, question: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The newest actuations."""
        limit = question.get("limit", 100)
        if not isinstance(limit, int) or not 1 <= limit <= 10_000:
            raise Rejected("invalid_value", "limit is not a number from 1 to 10000")
        return await self._journal.actuations(limit)

    async def history(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """The history of design section 5; `data` holds the readings."""
        try:
            asked = HistoryQuestion.model_validate(dict(question))
        except ValidationError as error:
            raise Rejected("invalid_value", sentence(error)) from None
        answer = await self._historian.answer(
            asked, lambda _: True, limit_bytes=HISTORY_MAX_BYTES, limit_s=HISTORY_LIMIT_S
        )
        return {**answer.result, "data": answer.data}

    async def history_flush(self, question: Mapping[str, Any]) -> None:
        """What is in memory goes to the file, for who reads that."""
        if self._historian.history is not None:
            await self._historian.history.flush()

    def _device(self, question: Mapping[str, Any]) -> Device:
        name = question.get("device")
        device = self._devices.get(name) if isinstance(name, str) else None
        if device is None:
            known = ", ".join(self._devices) or "none"
            raise Rejected("unknown_device", f"there is no device {name!r}; there are: {known}")
        return device
