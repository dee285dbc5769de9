"""The PubNub REST surface (docs/protocol.md): publish, subscribe, history, time, files, presence."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from typing import Any

from aiohttp import web
from multidict import CIMultiDict

from device_agent.testing.network.accounts import READ, WRITE
from device_agent.testing.network.backend import Backend
from device_agent.testing.network.channels import Hub, Poll, PublishedMessage, Wire
from device_agent.testing.network.files import FilesApi
from device_agent.testing.network.filters import FilterError, compile_filter
from device_agent.testing.network.http import Call, HttpError, raw, reply
from device_agent.testing.network.setup import SetupFunction


class PubSub:
    """Messaging over HTTP."""

    def __init__(self, backend: Backend, files: FilesApi) -> None:
        self._backend = backend
        self._settings, self._wire, self._tokens = backend.settings, backend.wire, backend.tokens
        self._setup = SetupFunction(backend)
        self._files = files

    async def publish(self, call: Call) -> web.Response:
        """``/publish/P/S/0/{channel}/0`` with the message as body, or as last part of the path."""
        segments = call.segments
        if len(segments) < 6 or segments[3] != "0":
            raise HttpError(404, {"status": 404, "message": "Not Found", "error": True})
        hub = self._wire.hub(segments[2], segments[1])
        channel = segments[4]
        text, size = await self._message(call)
        if size > self._settings.message_limit_bytes:
            raise HttpError(413, [0, "Message Too Large", str(self._wire.clock.timetoken())])
        grant = self._tokens.check(call.query.get("auth"), hub.environment, [channel], WRITE)
        meta_raw = call.query.get("meta", "")
        try:
            body = json.loads(text)
            meta = _meta(meta_raw) if meta_raw else None
        except ValueError as error:
            raise HttpError(400, [0, "Invalid JSON", str(self._wire.clock.timetoken())]) from error
        store = call.query.get("store", "1") == "1"
        clock, setup = self._wire.clock, channel.startswith("setup.")
        message = PublishedMessage(
            channel, text, call.uuid, clock.timetoken(), meta_raw, meta, store and not setup, grant.kind
        )
        if setup:
            self._wire.record(hub, message, 403)
            return reply(self._setup.answer(channel, body), 403)
        self._wire.publish(hub, message, body)
        if call.twice:
            message = replace(message, timetoken=clock.timetoken(), wire="")
            self._wire.publish(hub, message, body)
        return raw(b'[1,"Sent","%d"]' % message.timetoken)

    async def _message(self, call: Call) -> tuple[str, int]:
        """The message's JSON, and its size as the service counts it: encoded when it is part of the URL."""
        if call.method == "POST":
            data = await call.body()
            try:
                return data.decode(), len(data)
            except UnicodeDecodeError as error:
                raise HttpError(400, [0, "Invalid JSON", "0"]) from error
        # Everything after the callback's "0" is the message, whatever slashes it holds.
        encoded = call.request.raw_path.partition("?")[0].split("/", 7)
        return "/".join(call.segments[6:]), len(encoded[7]) if len(encoded) > 7 else 0

    async def subscribe(self, call: Call) -> web.Response:
        """``/v2/subscribe/S/{channels}/0``."""
        hub = self._wire.hub(call.segments[2])
        channels = call.segments[3].split(",")
        token = call.query.get("auth")
        readable = [c for c in channels if not c.endswith("-pnpres")]
        self._tokens.check(token, hub.environment, readable, READ)
        poll = Poll(
            channels, _numeric(call, "tt"), _filter(call), call.uuid, token or "", call.path, call.link
        )
        note_presence(self._wire, hub, readable, call, self._settings.presence_timeout_s)
        # Taken before the backend learns of the subscriber: what is sent because of it must be newer.
        now = self._wire.clock.timetoken()
        self._backend.saw_presence(readable)
        if poll.cursor == 0:
            return raw(b'{"t":{"t":"%d","r":1},"m":[]}' % now)
        cursor, found = await hub.wait(
            poll,
            self._settings.hold_s,
            lambda: self._tokens.check_not_revoked(poll.token, readable),
        )
        if call.twice:
            found = [m for m in found for _ in range(2)]
        if call.backwards:
            found = found[::-1]
        items = ",".join([m.envelope(hub.subscribe_key) for m in found])
        return raw(f'{{"t":{{"t":"{cursor}","r":1}},"m":[{items}]}}'.encode())

    async def history(self, call: Call) -> web.Response:
        """``/v3/history/sub-key/S/channel/{channels}``."""
        hub = self._wire.hub(call.segments[3])
        channels = call.segments[5].split(",")
        self._tokens.check(call.query.get("auth"), hub.environment, channels, READ)
        page = 100 if len(channels) == 1 else 25
        count = min(_numeric(call, "max") or page, page)
        start = _numeric(call, "start") if "start" in call.query else None
        end = _numeric(call, "end") if "end" in call.query else None
        answer: list[str] = []
        for channel in channels:
            found = hub.history(channel, count, start, end)
            if found:
                items = ",".join(_history_item(m, call) for m in found)
                answer.append(f"{json.dumps(channel)}:[{items}]")
        head = '{"status":200,"error":false,"error_message":"","channels":{'
        return raw(f"{head}{','.join(answer)}}}}}".encode())

    async def time(self, call: Call) -> web.Response:
        """``/time/0``."""
        return raw(b"[%d]" % self._wire.clock.timetoken())

    async def file(self, call: Call) -> web.Response:
        """``/v1/files/S/channels/{channel}/files/{id}/{name}``: where the file is, by 307."""
        hub = self._wire.hub(call.segments[2])
        channel, file_id, name = call.segments[4], call.segments[6], call.segments[7]
        self._tokens.check(call.query.get("auth"), hub.environment, [channel], READ)
        location = self._files.location(call, file_id, channel, name)
        if location is None:
            raise HttpError(404, {"status": 404, "error": {"message": "File not found", "source": "files"}})
        headers = CIMultiDict((("Location", location), ("Cache-Control", "private, no-cache")))
        return web.Response(status=307, headers=headers)


@lru_cache(maxsize=1024)
def _meta(text: str) -> Any:
    """Decoded once: a stream's messages all carry the same."""
    return json.loads(text)


def _history_item(message: PublishedMessage, call: Call) -> str:
    extra = ""
    if call.query.get("include_meta") == "true":
        extra += f',"meta":{message.meta_raw or json.dumps("")}'
    if call.query.get("include_uuid") == "true":
        extra += f',"uuid":{json.dumps(message.uuid)}'
    if call.query.get("include_message_type") == "true":
        extra += ',"message_type":null'
    return f'{{"message":{message.raw},"timetoken":"{message.timetoken}"{extra}}}'


def _filter(call: Call) -> Any:
    expression = call.query.get("filter-expr", "")
    if not expression.strip():
        return None
    try:
        return compile_filter(expression)
    except FilterError as error:
        raise HttpError(
            400,
            {
                "status": 400,
                "message": f"Filter syntax error: {error}",
                "error": True,
                "service": "Subscribe",
            },
        ) from error


def _numeric(call: Call, name: str) -> int:
    text = call.query.get(name, "") or "0"
    if not text.isdigit():
        raise HttpError(400, {"status": 400, "message": f"Invalid {name}", "error": True})
    return int(text)


_DONE = {"status": 200, "message": "OK", "service": "Presence"}


class PresenceApi:
    """Heartbeat, leave, state and here-now: ``/v2/presence/sub-key/S/channel/{channels}/…``."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._settings, self._wire, self._tokens = backend.settings, backend.wire, backend.tokens

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
        raise HttpError(404, {"status": 404, "message": "Not Found", "error": True, "service": "Presence"})

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
    """Note the presence that a subscribe or heartbeat shows, with the state that it may carry by channel."""
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
        raise HttpError(400, {"status": 400, "message": "Invalid JSON", "error": True}) from error
    if not isinstance(value, dict):
        raise HttpError(400, {"status": 400, "message": "Invalid State", "error": True})
    return value
