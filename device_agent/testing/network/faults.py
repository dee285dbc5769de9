"""Faults on purpose: rules that make requests fail, hang, answer twice or come late."""

from __future__ import annotations

import asyncio
import fnmatch
import itertools
import re
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from device_agent.testing.network.channels import Poll
from device_agent.testing.network.http import Call, reply

KINDS = ("status", "reset", "reset_mid_body", "blackhole", "lose_ack", "duplicate", "delay", "reorder")
"""``status``: answered with ``status`` and ``body``, nothing happens · ``reset``: connection reset before
anything happens · ``reset_mid_body``: it happens, half the answer's body, then a reset · ``blackhole``: the
request and every long-poll that waits are never answered, not even after healing · ``lose_ack``: it happens,
then a reset instead of the answer · ``duplicate``: a publish is delivered twice, a subscribe answer holds
every message twice · ``delay``: ``delay_s`` before it happens · ``reorder``: a publish takes ``delay_s``
before it happens, so that others overtake it, and a subscribe answer holds its messages the last first."""

PUBLISH = "/publish/*"
SUBSCRIBE = "/v2/subscribe/*"
TIME = "/time/*"

Route = Callable[[Call], Awaitable[web.StreamResponse]]


@dataclass(slots=True, eq=False)
class FaultRule:
    """One rule. ``path``, ``uuid`` and ``link`` are patterns with ``*``; ``uuid`` is the PubNub user id.

    The first ``skip`` matching requests pass, then ``count`` of them are hit; without a count, all until it
    is healed.
    """

    fault_id: str
    kind: str
    path: str = "*"
    uuid: str = "*"
    link: str = "*"
    method: str = "*"
    count: int | None = None
    skip: int = 0
    status: int = 503
    body: Any = None
    delay_s: float = 0.0
    hits: int = 0
    _pattern: re.Pattern[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown fault kind {self.kind!r}: one of {', '.join(KINDS)}")
        # One pattern over all four is one match per rule and request.
        self._pattern = re.compile(
            "".join(
                fnmatch.translate(p).removesuffix(r"\Z").removesuffix(r"\z") + "\0"
                for p in (self.path, self.uuid, self.link, self.method)
            ),
        )

    def matches(self, path: str, uuid: str, link: str, method: str) -> bool:
        """Whether a request is meant."""
        return self._pattern.match(f"{path}\0{uuid}\0{link}\0{method}\0") is not None


class FaultRules:
    """The rules that are in force, oldest first; the first that matches a request decides."""

    def __init__(self) -> None:
        self.rules: list[FaultRule] = []
        self._ids = itertools.count(1)

    def add(self, kind: str, path: str = "*", **options: Any) -> FaultRule:
        """Put a rule in force."""
        if len(self.rules) >= 1000:
            raise ValueError("there are 1000 fault rules already")
        fault = FaultRule(f"f{next(self._ids)}", kind, path, **options)
        self.rules.append(fault)
        return fault

    def heal(self, fault_id: str | None = None) -> int:
        """Take one rule, or all, out of force; how many."""
        gone = [r for r in self.rules if fault_id in (None, r.fault_id)]
        self.rules = [r for r in self.rules if r not in gone]
        return len(gone)

    def take(self, call: Call) -> FaultRule | None:
        """The rule that hits this request; used up rules go."""
        for rule in self.rules:
            if not rule.matches(call.path, call.uuid, call.link, call.method):
                continue
            if rule.skip > 0:
                rule.skip -= 1
                continue
            rule.hits += 1
            if rule.count is not None and rule.hits >= rule.count:
                self.rules.remove(rule)
            return rule
        return None

    @staticmethod
    def silences(fault: FaultRule, poll: Poll) -> bool:
        """Whether a long-poll that waits already falls into a new blackhole."""
        return fault.kind == "blackhole" and fault.matches(poll.path, poll.uuid, poll.link, "GET")


async def act(
    fault: FaultRule, call: Call, route: Route, closing: asyncio.Event
) -> web.StreamResponse | None:
    """Serve a request under a fault; ``None`` means that its connection is to be reset."""
    if fault.kind == "status":
        return reply(fault.body if fault.body is not None else {"error": "injected fault"}, fault.status)
    if fault.kind == "reset":
        return None
    if fault.kind == "blackhole":
        await closing.wait()
        return None
    if fault.kind in ("delay", "reorder"):
        await asyncio.sleep(fault.delay_s)
    call.twice = fault.kind == "duplicate"
    call.backwards = fault.kind == "reorder"
    response = await route(call)
    if fault.kind == "lose_ack":
        return None
    if fault.kind == "reset_mid_body":
        await _half(call.request, response)
        return None
    return response


def reset(request: web.BaseRequest) -> None:
    """End the connection with a TCP reset."""
    transport = request.transport
    if transport is None:
        return
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def _half(request: web.BaseRequest, response: web.StreamResponse) -> None:
    body = response.body if isinstance(response, web.Response) else None
    data = bytes(body) if isinstance(body, bytes) else b""
    partial = web.StreamResponse(status=response.status, headers=response.headers)
    partial.content_length = len(data) + 1
    await partial.prepare(request)
    await partial.write(data[: len(data) // 2])
