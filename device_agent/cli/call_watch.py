"""`device-agent call AGENT watch`: readings as they come, as a table, JSON lines or CSV."""

import argparse
import csv
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

from device_agent.cli.call_show import Units, dumps, note, points_of, sentence
from device_agent.cli.common import Exit, Unavailable
from device_agent.errors import AgentError

if TYPE_CHECKING:
    from device_agent.cli.call_client import Caller, Ended, Session

DEFAULT_MINUTES = 60
COLUMNS = ("at", "device", "point", "value", "unit", "flag", "late", "seq")


def watch(caller: "Caller", args: argparse.Namespace) -> int:
    """Until --for has passed, the session ends, or Ctrl-C."""
    from device_agent.cli.call import units

    form = "ndjson" if args.json and args.format == "table" else args.format
    known: Units = {} if form == "ndjson" else units(caller, args.timeout)
    minutes = args.duration or (math.ceil(args.for_s / 60) + 1 if args.for_s else DEFAULT_MINUTES)
    with _output(args) as output, _ends_on_sigterm(), caller.open(_request(args), minutes) as session:
        session.wait_open(args.timeout)
        printer = Printer(output, form, known, frozenset(args.devices), args.stream)
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


def _follow(session: "Session", args: argparse.Namespace, printer: "Printer") -> "Ended | None":
    """The time of --for begins with what comes first, for which --timeout is the limit."""
    from device_agent.cli.call_client import Ended

    begun = False
    end_s = math.inf if args.for_s is None else time.monotonic() + args.timeout
    while (left_s := end_s - time.monotonic()) > 0:
        # Short waits: Python notices Ctrl-C between them.
        item = session.get(min(left_s, 0.5))
        if isinstance(item, Ended):
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


class Printer:
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
        self._write: Callable[[Any], None] = {"table": self._line, "ndjson": self._json, "csv": self._csv}[
            form
        ]
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
        writer = csv.writer(_Lines(self._text), lineterminator="")
        if self._csv_head:
            self._csv_head = False
            writer.writerow(COLUMNS)
        late = "late" if event.get("late") is True else ""
        for point, value, unit, flag in points_of(event, self._units):
            row = (event.get("at"), event.get("device"), point, value, unit, flag, late, event.get("seq"))
            writer.writerow(_cell(cell) for cell in row)


class _Lines:
    """What `csv.writer` takes for a file."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self.write = write


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # A spreadsheet takes a text that begins like this for a formula.
        text = dumps(value)[1:-1].replace('\\"', '"')
        return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
    return value


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
