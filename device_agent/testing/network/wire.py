"""The messaging plane under the HTTP surface: key sets, channels, presence, and the publishes' record."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from device_agent.testing.network.channels import Hub
from device_agent.testing.network.clock import Clock
from device_agent.testing.network.presence import Presence
from device_agent.testing.network.records import PublishRecord, Records
from device_agent.testing.network.replies import Refused, dumps
from device_agent.testing.network.settings import BACKEND_UUID, KEY_SETS, PROTOCOL_VERSION, Settings

TaskListener = Callable[[str, dict[str, Any], str], None]
"""Told of every message on a task channel: channel, body, publisher uuid."""


class Wire:
    """Both key sets with their channels and presence tables."""

    def __init__(self, clock: Clock, settings: Settings, records: Records) -> None:
        self.clock = clock
        self.records = records
        self.hubs = {name: Hub(name, keys[1], clock, settings) for name, keys in KEY_SETS.items()}
        self.presence = {name: Presence() for name in KEY_SETS}
        self.listener: TaskListener | None = None
        self._by_key = {hub.subscribe_key: hub for hub in self.hubs.values()}
        self._publish_keys = {keys[1]: keys[0] for keys in KEY_SETS.values()}

    def hub(self, subscribe_key: str, publish_key: str | None = None) -> Hub:
        """The key set of a request, or 400."""
        found = self._by_key.get(subscribe_key)
        if found is None or publish_key not in (None, self._publish_keys[subscribe_key]):
            raise Refused(
                400, {"status": 400, "message": "Invalid Key", "error": True, "service": "Access Manager"}
            )
        return found

    def publish(
        self,
        hub: Hub,
        channel: str,
        raw: str,
        body: Any,
        *,
        uuid: str,
        meta_raw: str,
        meta: Any,
        store: bool,
        token_kind: str,
    ) -> int:
        """Deliver a message, record it, and follow the task that it belongs to; its timetoken."""
        message = hub.publish(channel, raw, uuid, meta_raw, meta, store)
        self.record(hub, channel, message.timetoken, raw, uuid, meta, store, token_kind, 200)
        if self.listener is not None and channel.startswith("u.") and isinstance(body, dict):
            self.listener(channel, body, uuid)
        return message.timetoken

    def record(
        self,
        hub: Hub,
        channel: str,
        timetoken: int,
        raw: str,
        uuid: str,
        meta: Any,
        store: bool,
        token_kind: str,
        status: int,
    ) -> None:
        """Note a publish, accepted or not."""
        self.records.published(
            PublishRecord(
                time.time(), timetoken, hub.environment, channel, uuid, token_kind, meta, raw, store, status
            )
        )

    def send(self, environment: str, channel: str, body: Any, meta: Any, *, store: bool = False) -> int:
        """A publish of the backend itself; its timetoken."""
        meta_raw = dumps(meta) if meta is not None else ""
        return self.publish(
            self.hubs[environment],
            channel,
            dumps(body),
            body,
            uuid=BACKEND_UUID,
            meta_raw=meta_raw,
            meta=meta,
            store=store,
            token_kind="backend",
        )

    def send_event(self, environment: str, channel: str, agent_name: str, event: dict[str, Any]) -> int:
        """A task event of the backend, stored, with the meta of section 7; its timetoken."""
        event = {**event, "protocolVersion": PROTOCOL_VERSION}
        meta = {
            "agentName": agent_name,
            "taskId": event.get("taskId"),
            "protocolVersion": PROTOCOL_VERSION,
        }
        return self.send(environment, channel, event, meta, store=True)

    def recheck(self) -> None:
        """Let every held long-poll check its token again."""
        for hub in self.hubs.values():
            for poll in list(hub.polls):
                poll.wake()
