"""What the owner may do through the control socket, also without a daemon: read, drive, make safe, stop."""

import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from device_agent.commands.authorization import Actor, Role, local_actor, may
from device_agent.commands.control_side import ControlSide
from device_agent.devices.device import Device
from device_agent.errors import Rejected
from device_agent.messages.commands import parse
from device_agent.messages.events import reading_members
from device_agent.network import Caller
from device_agent.operate.control_socket import Handler, asking_user
from device_agent.records import File, is_number

SAFE_LIMIT_S = 5.0
OWNER = Actor("local", "the owner, on the device", Caller(), role=Role.OWNER)
# Members of a question about a command that are no part of it.
NOT_OF_COMMANDS = frozenset(("op", "dry_run", "as", "at", "age_ms"))
# What a door may ask; the rest is the owner's, who has the socket.
FOR_DOORS = frozenset(("status", "describe", "read", "history", "journal", "set", "do", "stop"))


class LocalHandlers:
    """Handlers by op. The owner needs no access rule; leases and limits hold for the owner as for anybody.

    A question with `as` comes by a door (`local:page`, `local:mcp/CLIENT`): the access rules hold for it.
    """

    def __init__(self, control: ControlSide) -> None:
        self._devices = control.devices
        self._executor = control.executor
        self._safe_states = control.safe_states
        self._journal = control.context.journal
        self._clock = control.context.clock
        self._stop = control.emergency_stop

    def handlers(self) -> dict[str, Handler]:
        """Those that a door may not ask refuse a question with `as`."""
        return {
            op: handler if op in FOR_DOORS else _for_the_owner(op, handler)
            for op, handler in self._by_op().items()
        }

    def _by_op(self) -> dict[str, Handler]:
        return {
            "read": self.read,
            "set": self.command,
            "do": self.command,
            "stop": self.stop,
            "safe": self.safe,
            "estop": self.estop,
            "release": self.release,
            "journal": self.journal,
            "verify": self.verify,
        }

    async def read(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """A fresh reading of one device."""
        return reading_members(await self.device(question).read_now())

    async def stop(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """A `stop` as a caller sends it: for anybody who may drive anything."""
        command = parse({"kind": "stop", "id": question.get("id", f"local-{time.time_ns()}")})
        return (await self._executor.stop(command, self.actor(question))).members()  # type: ignore[arg-type]

    async def command(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """A `set` or `do` (docs/events.md); the id may be left out. With `dry_run` nothing moves."""
        event = {name: value for name, value in question.items() if name not in NOT_OF_COMMANDS}
        event["kind"] = question["op"]
        event.setdefault("id", f"local-{time.time_ns()}")
        command, actor = parse(event), self.actor(question)
        if question.get("dry_run"):
            return self._executor.dry_run(command, actor).members()  # type: ignore[arg-type]
        files: list[File] = []
        age_ms = self._age_ms(question)
        ack = await self._executor.execute(command, actor, age_ms=age_ms, on_file=files.append)  # type: ignore[arg-type]
        return {**ack.members(), **({"file": asdict(files[0])} if files else {})}

    def _age_ms(self, question: Mapping[str, Any]) -> float | None:
        """How old a command is: as the door knows (`age_ms`), or by its sender's clock (`at`) if that says
        more; None while ours does not know the time that it needs. Raises Rejected."""
        age_ms, at_ms = question.get("age_ms", 0.0), question.get("at")
        if not is_number(age_ms) or not (at_ms is None or is_number(at_ms)):
            raise Rejected("invalid_value", "at is not a number of milliseconds since 1970")
        if at_ms is None:
            return max(0.0, age_ms)
        return max(0.0, age_ms, self._clock.now_ms() - at_ms) if self._clock.is_set() else None

    async def safe(self, question: Mapping[str, Any]) -> dict[str, bool]:
        """Every actuator to its safe state, now."""
        return await self._safe_states.all_safe("asked by the owner", SAFE_LIMIT_S)

    async def estop(self, question: Mapping[str, Any]) -> dict[str, bool]:
        """The emergency stop: safe at once, and latched."""
        return await self._stop.press(OWNER.label, self.actor(question).recorded)

    async def release(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """End the emergency stop; only here, on the spot."""
        await self._stop.release(self.actor(question).recorded)
        return self._stop.status()

    async def verify(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Whether the Journal's chain fits (`store.journal.hash_chain.verify`)."""
        return await self._journal.verify()

    async def journal(self, question: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The newest actuations."""
        limit = question.get("limit", 100)
        if not isinstance(limit, int) or not 1 <= limit <= 10_000:
            raise Rejected("invalid_value", "limit is not a number from 1 to 10000")
        rows = await self._journal.actuations(limit)
        if "as" in question:  # which caller it was is the owner's to know
            return [{**row, "who": row["who"].partition(" (")[0]} for row in rows]
        return rows

    def actor(self, question: Mapping[str, Any]) -> Actor:
        """The owner, or who comes by a door. Raises Rejected."""
        actor = local_actor(question["as"]) if "as" in question else OWNER
        return replace(actor, unix_user=asking_user())

    def readable(self, question: Mapping[str, Any]) -> Mapping[str, Device]:
        """The devices that exist for whoever asks."""
        actor, access = self.actor(question), self._executor.config.access
        return {name: device for name, device in self._devices.items() if may(access, "read", actor, name)}

    def device(self, question: Mapping[str, Any]) -> Device:
        name, devices = question.get("device"), self.readable(question)
        device = devices.get(name) if isinstance(name, str) else None
        if device is None:
            known = ", ".join(devices) or "none"
            raise Rejected("unknown_device", f"there is no device {name!r}; there are: {known}")
        return device


def _for_the_owner(op: str, handler: Handler) -> Handler:
    async def handle(question: Mapping[str, Any]) -> Any:
        if "as" in question:
            raise Rejected("not_allowed", f"{op} is for the owner at the device alone")
        return await handler(question)

    return handle
