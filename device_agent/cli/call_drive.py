"""`device-agent call AGENT drive`: commands over a session, typed by a person or piped in by a script.

A line is a JSON object (design section 4's `set`, `do` and session words), or the same in words:
`set DEVICE POINT VALUE`, `do DEVICE ACTION NAME=VALUE…`, `pause`, `resume`, `rate DEVICE SECONDS`.
"""

import argparse
import json
import queue
import secrets
import shlex
import sys
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from device_agent.cli.call_show import Units, dumps, note, sentence
from device_agent.cli.common import Exit
from device_agent.errors import AgentError, Rejected

if TYPE_CHECKING:
    from device_agent.cli.call_client import Caller, Ended, Item, Session

DEFAULT_MINUTES = 60
# The agent's own limit for a command without a `ttl_ms`, and room for the way there and back.
TTL_S = 5.0
ACK_LIMIT_S = 15.0
# How long the control event, which tells what a stream carries, may take after the stream itself.
CONTROL_LIMIT_S = 5.0


def drive(caller: "Caller", args: argparse.Namespace) -> int:
    """0 when every command was done, 1 when one was not, 77 when one was not allowed."""
    from device_agent.cli.call import units
    from device_agent.cli.call_watch import _ends_on_sigterm

    known = {} if args.json else units(caller, args.timeout)
    request = {"streams": [args.stream]} if args.stream else {}
    with _ends_on_sigterm(), caller.open(request, args.duration or DEFAULT_MINUTES) as session:
        session.wait_open(args.timeout)
        driver = Driver(session, known, as_json=args.json, readings=args.readings)
        driver.settle()
        if args.command:
            for line in args.command:
                driver.send(line)
        elif sys.stdin.isatty():
            note("Commands, one a line: set DEVICE POINT VALUE, do DEVICE ACTION NAME=VALUE, or JSON.")
            note("Ctrl-D ends the session; what it drove goes to its safe state.")
            driver.follow_lines(sys.stdin)
        else:
            driver.follow_lines(sys.stdin)
        return driver.finish()


class Driver:
    """Sends commands of one session and prints the answers."""

    def __init__(self, session: "Session", units: Units, *, as_json: bool, readings: bool) -> None:
        self._session = session
        self._units = units
        self._as_json = as_json
        self._readings = readings
        self._carries: dict[str, list[str]] = {}
        self._waiting: dict[str, float] = {}
        self._code = Exit.DONE
        self._ended: Ended | None = None

    def settle(self) -> None:
        """Until a stream that takes commands has said what it carries, or it has had its time."""
        deadline_s = time.monotonic() + CONTROL_LIMIT_S
        while time.monotonic() < deadline_s and self._ended is None:
            if any(name in self._carries for name in self._writable()):
                return
            self._take(self._session.get(0.1))

    def follow_lines(self, lines: Iterable[str]) -> None:
        """Send each line as it comes; print answers in between."""
        typed: queue.SimpleQueue[str | None] = queue.SimpleQueue()

        def read() -> None:
            for line in lines:
                typed.put(line)
            typed.put(None)

        threading.Thread(target=read, name="drive-input", daemon=True).start()
        while self._ended is None:
            self._take(self._session.get(0.05))
            while not typed.empty():
                line = typed.get()
                if line is None:
                    return
                if line.strip():
                    self.send(line)

    def send(self, line: str) -> None:
        """One command. What is no command is said, and counts as failed."""
        try:
            event = _event(line)
            stream = self._stream_for(event)
            self._session.write(stream, event | self._due(event))
        except AgentError as error:
            note(f"not sent: {error}")
            self._failed("invalid_value")

    def _due(self, event: dict[str, Any]) -> dict[str, Any]:
        """Note that an answer is due; the members that the event still lacks."""
        now_s = time.monotonic()
        if event["kind"] not in ("set", "do"):
            self._waiting[f"word:{event['kind']}"] = now_s + ACK_LIMIT_S
            return {}
        id_ = str(event.get("id") or secrets.token_hex(6))
        ttl_ms = event.get("ttl_ms")
        ttl_s = ttl_ms / 1000 if isinstance(ttl_ms, int) and not isinstance(ttl_ms, bool) else TTL_S
        self._waiting[id_] = now_s + ttl_s + ACK_LIMIT_S
        return {"id": id_}

    def finish(self) -> int:
        """Wait for the answers that are still due; the exit code."""
        while self._waiting and self._ended is None:
            self._take(self._session.get(0.1))
            now_s = time.monotonic()
            for id_ in [id_ for id_, deadline_s in self._waiting.items() if deadline_s < now_s]:
                del self._waiting[id_]
                note(f"no answer to {id_}: whether it was carried out is unknown")
                self._failed("unknown")
        if self._ended is not None:
            reason = self._ended.reason and f" ({self._ended.reason})"
            note(f"the session has ended: {self._ended.state}{reason}")
            if self._waiting or self._ended.state != "completed":
                self._failed("unknown")
        return int(self._code)

    # -- out ----------------------------------------

    def _writable(self) -> list[str]:
        streams = self._session.streams
        return [name for name, opened in streams.items() if opened.writable and opened.format == "events"]

    def _stream_for(self, event: dict[str, Any]) -> str:
        open_ = self._writable()
        if not open_:
            raise AgentError("this agent has opened no stream that takes commands")
        device = event.get("device")
        for name in open_:
            if device is None or device in self._carries.get(name, ()):
                return name
        # An inbound stream does not say what it carries; the agent answers for a device it does not know.
        silent = [name for name in open_ if name not in self._carries]
        return (silent or open_)[0]

    # -- in ----------------------------------------

    def _take(self, item: "Item | Ended | None") -> None:
        from device_agent.cli.call_client import Ended

        if item is None:
            return
        if isinstance(item, Ended):
            self._ended = item
            return
        event = item.payload
        if not isinstance(event, dict):
            return
        match event.get("kind"):
            case "ack":
                self._waiting.pop(str(event.get("id")), None)
                if event.get("state") != "done":
                    fault = event.get("error")
                    self._failed(str(fault.get("code")) if isinstance(fault, dict) else "internal")
            case "control" if event.get("about") == "session":
                devices = event.get("devices")
                self._carries[item.stream] = [str(d) for d in devices] if isinstance(devices, list) else []
                if not self._readings:
                    return
            case "control" if "ok" in event:
                self._waiting.pop(f"word:{event.get('about')}", None)
                if event.get("ok") is not True:
                    self._failed("invalid_value")
            case "control":
                pass  # words of a delegation: they are no answer to anything that was sent here
            case _ if not self._readings:
                return
        print(dumps(event) if self._as_json else sentence(event, self._units), flush=True)

    def _failed(self, code: str) -> None:
        if self._code != Exit.DENIED:
            self._code = Exit.DENIED if code == "not_allowed" else Exit.FAILED


# -- what a person types ------------------------------------------------------------------------------------


def _event(line: str) -> dict[str, Any]:
    """A line as an event. Raises AgentError with what is wrong."""
    from device_agent.cli.call import named_values
    from device_agent.cli.control import parse_value

    if line.lstrip().startswith("{"):
        try:
            event = json.loads(line)
        except ValueError as error:
            raise Rejected("invalid_value", f"this is not JSON ({error})") from None
        if not isinstance(event.get("kind"), str):
            raise Rejected("invalid_value", 'the object has no member "kind", such as "set"')
        return dict(event)
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise Rejected("invalid_value", f"{line.strip()!r}: {error}") from None
    match words:
        case ["set", device, point, value]:
            return {"kind": "set", "device": device, "values": {point: parse_value(value)}}
        case ["do", device, action, *args]:
            return {"kind": "do", "device": device, "action": action, "args": named_values(args)}
        case ["pause" | "resume" as kind]:
            return {"kind": kind}
        case ["rate", device, seconds]:
            return {"kind": "rate", "device": device, "every_s": parse_value(seconds)}
    raise Rejected(
        "invalid_value",
        f"{line.strip()!r} is none of: set DEVICE POINT VALUE, do DEVICE ACTION NAME=VALUE, pause, resume, "
        "rate DEVICE SECONDS, or a JSON object",
    )
