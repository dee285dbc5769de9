"""The PubNub REST surface (protocol section 7): publish, subscribe, history, time, files."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from aiohttp import web
from multidict import CIMultiDict

from device_agent.testing.network.backend import Backend
from device_agent.testing.network.calls import Call
from device_agent.testing.network.channels import Hub, Message, Poll
from device_agent.testing.network.files_api import FilesApi
from device_agent.testing.network.filters import FilterError, compile_filter
from device_agent.testing.network.presence_api import note_presence
from device_agent.testing.network.replies import Refused, raw, reply
from device_agent.testing.network.settings import Settings
from device_agent.testing.network.setup import SetupFunction
from device_agent.testing.network.tokens import READ, WRITE, Tokens
from device_agent.testing.network.wire import Wire


class PubSub:
    """Messaging over HTTP."""

    def __init__(
        self,
        settings: Settings,
        wire: Wire,
        tokens: Tokens,
        backend: Backend,
        setup: SetupFunction,
        files: FilesApi,
    ) -> None:
        self._settings = settings
        self._wire = wire
        self._tokens = tokens
        self._backend = backend
        self._setup = setup
        self._files = files

    async def publish(self, call: Call) -> web.Response:
        """``/publish/P/S/0/{channel}/0`` with the message as body, or as last part of the path."""
        segments = call.segments
        if len(segments) < 6 or segments[3] != "0":
            raise Refused(404, {"status": 404, "message": "Not Found", "error": True})
        hub = self._wire.hub(segments[2], segments[1])
        channel = segments[4]
        text, size = await self._message(call)
        if size > self._settings.message_limit_bytes:
            raise Refused(413, [0, "Message Too Large", str(self._wire.clock.timetoken())])
        grant = self._tokens.check(call.query.get("auth"), hub.environment, [channel], WRITE)
        meta_raw = call.query.get("meta", "")
        try:
            body = json.loads(text)
            meta = _meta(meta_raw) if meta_raw else None
        except ValueError as error:
            raise Refused(400, [0, "Invalid JSON", str(self._wire.clock.timetoken())]) from error
        if channel.startswith("setup."):
            self._wire.record(
                hub, channel, self._wire.clock.timetoken(), text, call.uuid, meta, False, grant.kind, 403
            )
            return reply(self._setup.answer(channel, body), 403)
        store = call.query.get("store", "1") == "1"
        timetoken = 0
        for _ in range(2 if call.twice else 1):
            timetoken = self._wire.publish(
                hub,
                channel,
                text,
                body,
                uuid=call.uuid,
                meta_raw=meta_raw,
                meta=meta,
                store=store,
                token_kind=grant.kind,
            )
        return raw(b'[1,"Sent","%d"]' % timetoken)

    async def _message(self, call: Call) -> tuple[str, int]:
        """The message's JSON, and its size as the service counts it: encoded when it is part of the URL."""
        if call.method == "POST":
            data = await call.body()
            try:
                return data.decode(), len(data)
            except UnicodeDecodeError as error:
                raise Refused(400, [0, "Invalid JSON", "0"]) from error
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
        poll = Poll(channels, _number(call, "tt"), _filter(call), call.uuid, token or "")
        poll.path, poll.link = call.path, call.link
        note_presence(self._wire, hub, readable, call, self._settings.presence_timeout_s)
        # Taken before anybody hears of the subscriber: what is sent because of it must be newer.
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
        count = min(_number(call, "max") or page, page)
        start = _number(call, "start") if "start" in call.query else None
        end = _number(call, "end") if "end" in call.query else None
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
            raise Refused(404, {"status": 404, "error": {"message": "File not found", "source": "files"}})
        headers = CIMultiDict((("Location", location), ("Cache-Control", "private, no-cache")))
        return web.Response(status=307, headers=headers)

    def hub_of(self, call: Call, index: int) -> Hub:
        """The key set named by a part of the path."""
        return self._wire.hub(call.segments[index])


@lru_cache(maxsize=1024)
def _meta(text: str) -> Any:
    """Decoded once: a stream's messages all carry the same."""
    return json.loads(text)


def _history_item(message: Message, call: Call) -> str:
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
        raise Refused(
            400,
            {
                "status": 400,
                "message": f"Filter syntax error: {error}",
                "error": True,
                "service": "Subscribe",
            },
        ) from error


def _number(call: Call, name: str) -> int:
    text = call.query.get(name, "") or "0"
    if not text.isdigit():
        raise Refused(400, {"status": 400, "message": f"Invalid {name}", "error": True})
    return int(text)
