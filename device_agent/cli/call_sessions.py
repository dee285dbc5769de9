"""`device-agent call AGENT watch` and `… drive`: what a session brings, and commands over it.

`watch` prints readings as they come, as a table, JSON lines or CSV. `drive` takes commands from a person or a
script, one a line: a JSON object (`set`, `do` and session messages, docs/events.md), or in short
`set DEVICE POINT VALUE`, `do DEVICE ACTION NAME=VALUE…`, `pause`, `resume`, `rate DEVICE SECONDS`."""

import argparse
import json
import math
import queue
import secrets
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from device_agent.cli.call_client import AgentCaller, AgentSession, SessionEnd, StreamItem
from device_agent.cli.common import Exit, Unavailable, named_values, parse_value
from device_agent.cli.show import Units, dumps, note, points_of, sentence
from device_agent.errors import AgentError, Rejected
from device_agent.records import is_whole
from device_agent.text.csv_row import csv_row

WATCH_MINUTES = 60
COLUMNS = ("at", "device", "point", "value", "unit", "flag", "late", "seq")


def watch(caller: AgentCaller, args: argparse.Namespace) -> int:
    """Until --for has passed, the session ends, or Ctrl-C."""

    form = args.format or ("json" if args.json else "table")
    known: Units = {} if form == "json" else caller.units(args.timeout)
    minutes = args.duration or (math.ceil(args.for_s / 60) + 1 if args.for_s else WATCH_MINUTES)
    with _output(args) as output, _ends_on_sigterm(), caller.open(_request(args), minutes) as session:
        session.wait_open(args.timeout)
        printer = EventPrinter(output, form, known, frozenset(args.devices), args.stream)
        ended = _follow(session, args, printer)
    if ended is None:
        return Exit.DONE
    note(f"the session has ended: {ended.state}{ended.reason and f' ({ended.reason})'}")
    return Exit.DONE if ended.state == "completed" else Exit.FAILED


def _request(args: argparse.Namespace) -> dict[str, Any]:
    request: dict[str, Any] = {}
    if args.stream:
        request["streams"] = [args.stream]
    if args.devices:
        request["devices"] = args.devices
    if args.every_s:
        request["every_s"] = args.every_s
    return request


def _follow(session: AgentSession, args: argparse.Namespace, printer: "EventPrinter") -> SessionEnd | None:
    """The time of --for begins with what comes first, for which --timeout is the limit."""

    begun = False
    end_s = math.inf if args.for_s is None else time.monotonic() + args.timeout
    while (left_s := end_s - time.monotonic()) > 0:
        # Short waits: Python notices Ctrl-C between them.
        item = session.get(min(left_s, 0.5))
        if isinstance(item, SessionEnd):
            return item
        if item is None:
            continue
        if not begun and args.for_s is not None:
            end_s = time.monotonic() + args.for_s
        begun = True
        printer.item(item.stream, item.payload)
    if not begun:
        raise Unavailable(f"nothing has come from the agent in {args.timeout:g} s")
    return None


class EventPrinter:
    """Writes what comes, at once, in one form.

    Other devices' readings on a shared stream are left out; a device that several streams carry is taken
    from the one where it came first.
    """

    def __init__(
        self, output: BinaryIO, form: str, units: Units, devices: frozenset[str], stream: str | None
    ) -> None:
        self._output = output
        self._units = units
        self._devices = devices
        self._stream = stream
        self._write: Callable[[Any], None] = {"table": self._line, "csv": self._csv, "json": self._json}[form]
        self._csv_head = form == "csv"
        self._home: dict[str, str] = {}

    def item(self, stream: str, payload: Any) -> None:
        if isinstance(payload, bytes):
            if stream == self._stream:
                self._output.write(payload)
                self._output.flush()
            return
        device = payload.get("device") if isinstance(payload, dict) else None
        if isinstance(device, str):
            if self._devices and device not in self._devices:
                return
            if (
                payload.get("kind") in ("reading", "status")
                and self._home.setdefault(device, stream) != stream
            ):
                return
        self._write(payload)
        self._output.flush()

    def _text(self, line: str) -> None:
        self._output.write(f"{line}\n".encode())

    def _line(self, event: Any) -> None:
        self._text(sentence(event, self._units))

    def _json(self, event: Any) -> None:
        self._text(dumps(event))

    def _csv(self, event: Any) -> None:
        if not isinstance(event, dict) or event.get("kind") != "reading":
            note(sentence(event, self._units))
            return
        if self._csv_head:
            self._csv_head = False
            self._text(csv_row(COLUMNS))
        late = "late" if event.get("late") is True else ""
        for point, value, unit, flag in points_of(event, self._units):
            row = (event.get("at"), event.get("device"), point, value, unit, flag, late, event.get("seq"))
            self._text(csv_row(_cell(cell) for cell in row))


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    # One event, one line.
    return dumps(value)[1:-1].replace('\\"', '"') if isinstance(value, str) else value


@contextmanager
def _output(args: argparse.Namespace) -> Iterator[BinaryIO]:
    if args.out is None:
        yield sys.stdout.buffer
        return
    try:
        file = args.out.open("wb")
    except OSError as error:
        raise AgentError(
            f"{args.out} cannot be written ({error.strerror}): name another file with --out"
        ) from None
    with file:
        yield file


@contextmanager
def _ends_on_sigterm() -> Iterator[None]:
    """`timeout` and service managers end a watch as Ctrl-C does: the session is cancelled, not abandoned."""

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


DRIVE_MINUTES = 60
# The agent's own limit for a command without a `ttl_ms`, and room for the way there and back.
TTL_S = 5.0
ACK_LIMIT_S = 15.0
# How long the control event, which lists the devices of a stream, may take after the stream itself.
CONTROL_LIMIT_S = 5.0


def drive(caller: AgentCaller, args: argparse.Namespace) -> int:
    """0 when every command was done, 1 when one was not, 77 when one was not allowed."""

    known = {} if args.json else caller.units(args.timeout)
    request = {"streams": [args.stream]} if args.stream else {}
    with _ends_on_sigterm(), caller.open(request, args.duration or DRIVE_MINUTES) as session:
        session.wait_open(args.timeout)
        driver = CommandSender(session, known, as_json=args.json, readings=args.readings)
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


class CommandSender:
    """Sends commands of one session and prints the answers."""

    def __init__(self, session: AgentSession, units: Units, *, as_json: bool, readings: bool) -> None:
        self._session = session
        self._units = units
        self._as_json = as_json
        self._readings = readings
        self._carries: dict[str, list[str]] = {}
        self._waiting: dict[str, float] = {}
        self._code = Exit.DONE
        self._ended: SessionEnd | None = None

    def settle(self) -> None:
        """Wait until a stream that takes commands has listed its devices, up to a limit."""
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
        """Send one command. What is not a command is reported, and counts as failed."""
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
        ttl_s = ttl_ms / 1000 if is_whole(ttl_ms) else TTL_S
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

    def _take(self, item: StreamItem | SessionEnd | None) -> None:

        if item is None:
            return
        if isinstance(item, SessionEnd):
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
                pass  # of a delegation: no answer to anything that was sent here
            case _ if not self._readings:
                return
        print(dumps(event) if self._as_json else sentence(event, self._units), flush=True)

    def _failed(self, code: str) -> None:
        if self._code != Exit.DENIED:
            self._code = Exit.DENIED if code == "not_allowed" else Exit.FAILED


# -- what a person types ------------------------------------------------------------------------------------


def _event(line: str) -> dict[str, Any]:
    """A line as an event. Raises AgentError with what is wrong."""

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
