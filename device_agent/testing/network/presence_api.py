"""The presence part of the PubNub REST surface (protocol sections 7 and 9)."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from device_agent.testing.network.backend import Backend
from device_agent.testing.network.calls import Call
from device_agent.testing.network.channels import Hub
from device_agent.testing.network.replies import Refused, reply
from device_agent.testing.network.settings import Settings
from device_agent.testing.network.tokens import READ, Tokens
from device_agent.testing.network.wire import Wire

_DONE = {"status": 200, "message": "OK", "service": "Presence"}


class PresenceApi:
    """Heartbeat, leave, state and here-now: ``/v2/presence/sub-key/S/channel/{channels}/…``."""

    def __init__(self, settings: Settings, wire: Wire, tokens: Tokens, backend: Backend) -> None:
        self._settings = settings
        self._wire = wire
        self._tokens = tokens
        self._backend = backend

    async def answer(self, call: Call) -> web.Response:
        """Any presence request."""
        segments = call.segments
        hub = self._wire.hub(segments[3])
        channels = [c for c in segments[5].split(",") if not c.endswith("-pnpres")]
        self._tokens.check(call.query.get("auth"), hub.environment, channels, READ)
        tail = segments[6:]
        if not tail:
            return reply(self._here_now(hub, channels, call))
        if tail == ["heartbeat"]:
            note_presence(self._wire, hub, channels, call, self._settings.presence_timeout_s)
            self._backend.saw_presence(channels)
            return reply(_DONE)
        if tail == ["leave"]:
            for channel in channels:
                self._wire.presence[hub.environment].leave(channel, call.uuid)
            self._wire.records.notify()
            return reply({**_DONE, "action": "leave"})
        if tail[0] == "uuid" and len(tail) in (2, 3):
            return reply({**_DONE, "payload": self._state(hub, channels, tail[1], call)})
        raise Refused(404, {"status": 404, "message": "Not Found", "error": True, "service": "Presence"})

    def _state(self, hub: Hub, channels: list[str], uuid: str, call: Call) -> dict[str, Any]:
        presence = self._wire.presence[hub.environment]
        if "state" not in call.query:
            found = {c: o.state for c in channels for o in presence.live(c) if o.uuid == uuid}
            return found.get(channels[0], {}) if len(channels) == 1 else {"channels": found}
        state = _object(call.query["state"])
        for channel in channels:
            presence.set_state(channel, uuid, state)
        self._backend.saw_presence(channels)
        return state

    def _here_now(self, hub: Hub, channels: list[str], call: Call) -> dict[str, Any]:
        with_state = call.query.get("state") == "1"
        named = call.query.get("disable_uuids") != "1"
        found: dict[str, dict[str, Any]] = {}
        for channel in channels:
            occupants = self._wire.presence[hub.environment].live(channel)
            found[channel] = {"occupancy": len(occupants)}
            if named:
                found[channel]["uuids"] = [
                    {"uuid": o.uuid, "state": o.state} if with_state else o.uuid for o in occupants
                ]
        if len(channels) == 1:
            return {**_DONE, **found[channels[0]]}
        total = sum(f["occupancy"] for f in found.values())
        payload = {"channels": found, "total_channels": len(found), "total_occupancy": total}
        return {**_DONE, "payload": payload}


def note_presence(wire: Wire, hub: Hub, channels: list[str], call: Call, default_timeout_s: float) -> None:
    """Take a subscribe or heartbeat as sign of life, with the state that it may carry by channel."""
    text = call.query.get("heartbeat", "")
    timeout_s = float(text) if text.isdigit() and int(text) > 0 else default_timeout_s
    presence = wire.presence[hub.environment]
    states = _object(call.query["state"]) if "state" in call.query else {}
    for channel in channels:
        occupant = presence.seen(channel, call.uuid, timeout_s)
        state = states.get(channel)
        if isinstance(state, dict):
            occupant.state = state


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise Refused(400, {"status": 400, "message": "Invalid JSON", "error": True}) from error
    if not isinstance(value, dict):
        raise Refused(400, {"status": 400, "message": "Invalid State", "error": True})
    return value
