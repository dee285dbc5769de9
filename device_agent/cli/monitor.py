"""What the daemon reads and drives, every second, until q or Ctrl-C; without a terminal in lines."""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from device_agent.cli.common import Exit, Unavailable, Unresponsive, config_path
from device_agent.cli.live import Line, Screen, ended_by_signals
from device_agent.cli.point_table import PointLine, Trace, point_table
from device_agent.cli.running_daemon import ask_daemon, require_answer, units_of_daemon
from device_agent.cli.show import Units, counted, unit_text, value_text
from device_agent.cli.status import driven, head_lines, values_text
from device_agent.clock import undated
from device_agent.errors import Rejected
from device_agent.text.printable import printable

EVERY_S = 1.0
# A bar of the sparklines stands for one reading, or for so long; the record fills those of the last hour.
BAR_S, RECALLED_S = 10.0, 3600.0


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    monitor = subparsers.add_parser("monitor", help="status that lives", description=__doc__)
    monitor.add_argument("--json", action="store_true", help="print one line of JSON each second")
    monitor.add_argument("--times", metavar="N", type=_times, help="end after so many")
    monitor.set_defaults(run=run)


def _times(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) < 10**9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def run(args: argparse.Namespace) -> int:
    file = config_path(args)
    first = dict(require_answer(file, {"op": "status"}))
    live = sys.stdin.isatty() and sys.stdout.isatty() and not args.json
    with suppress(KeyboardInterrupt), ended_by_signals():
        (_screen if live else _lines)(file, first, args)
    return Exit.DONE


def _present(file: Path) -> dict[str, Any] | None:
    """The status now; None while the daemon is away, for instance because it is started again."""
    try:
        return dict(ask_daemon(file, {"op": "status"}))
    except (Unavailable, Unresponsive):
        return None


# -- for a file or a pipe -----------------------------------------------------------------------------------


def _lines(file: Path, status: dict[str, Any] | None, args: argparse.Namespace) -> None:
    left, units = args.times, units_of_daemon(file)
    while True:
        if args.json:
            print(json.dumps(status and {**status, "units": units}, ensure_ascii=False), flush=True)
        else:
            print(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {status_line(status, units)}", flush=True)
        left = None if left is None else left - 1
        if left == 0:
            return
        time.sleep(EVERY_S)
        status = _present(file)


def status_line(status: Mapping[str, Any] | None, units: Units) -> str:
    """Link, outbox, sessions and present values in one line."""
    if status is None:
        return "no daemon answers"
    state, up = status["link"]["state"], status["link"]["up"]
    link = state if up or state in ("no network", "no API key") else "link down"
    parts = [f"{link}, {status['outbox']['events']} waiting, {counted(len(status['sessions']), 'session')}"]
    for device in status["devices"]:
        values = values_text(device, units) if device["state"] == "online" else ""
        parts.append(f"{device['device']}: {values or device['state']}")
    return printable(" | ".join(parts), 10_000)


# -- on a terminal ------------------------------------------------------------------------------------------


def _screen(file: Path, status: dict[str, Any] | None, args: argparse.Namespace) -> None:
    units, times = units_of_daemon(file), args.times
    picture = Picture(units)
    with suppress(Rejected, Unavailable, Unresponsive):  # without a history the bars begin now
        picture.recall(_recorded(file, units))
    with Screen() as screen:
        while True:
            picture.take(status, time.time())
            screen.draw(picture.lines(time.time(), *screen.size()))
            times = None if times is None else times - 1
            if times == 0:
                return
            match screen.key(EVERY_S):
                case "q" | "\x03" | "\x04":
                    return
                case " ":
                    picture.turn_page()
                case "":
                    status = _present(file)


def _recorded(file: Path, units: Units) -> dict[str, Any]:
    """The record of the last hour, as `history` has it. Raises Rejected, Unavailable, Unresponsive."""
    names = [name for name, points in units.items() if points]
    begin_ms = int((time.time() - RECALLED_S) * 1000)
    question = {"op": "history", "devices": names, "from": begin_ms, "every_s": BAR_S, "format": "json"}
    return dict(json.loads(ask_daemon(file, question)["data"]))


class Picture:
    """All that the screen shows; times in epoch seconds."""

    def __init__(self, units: Units) -> None:
        self._units = units
        self._traces: dict[tuple[str, str], Trace] = {}
        self._status: Mapping[str, Any] | None = None
        self._first = 0
        self._shown = 0

    def recall(self, history: Mapping[str, Any]) -> None:
        """Readings from before."""
        for reading in history["readings"]:
            self._take(reading)

    def take(self, status: Mapping[str, Any] | None, now_s: float) -> None:
        """The newest status; None while no daemon answers."""
        self._status = status
        for device in () if status is None else status["devices"]:
            if "latest" in device and not undated(device["latest"]["at"]):
                self._take(device["latest"])

    def _take(self, reading: Mapping[str, Any]) -> None:
        for point, value in reading["values"].items():
            trace = self._traces.setdefault((reading["device"], point), Trace())
            if reading["at"] / 1000 > trace.at_s:
                trace.take(value, reading["at"] / 1000, BAR_S)

    def turn_page(self) -> None:
        """To the points that had no room; after the last ones to the first."""
        self._first += self._shown

    def lines(self, now_s: float, columns: int, rows: int) -> list[Line]:
        """One frame, of exactly `rows` lines."""
        head: list[Line] = [[("no daemon answers: waiting for it", "yellow")]]
        points: list[PointLine] = []
        below: list[Line] = []
        if self._status is not None:
            head, points = [*head_lines(self._status)], list(self._points(self._status["devices"]))
            below = [[(f" {text}", "cyan")] for text in map(driven, self._status["devices"]) if text]
        room = max(1, rows - len(head) - len(below) - 3)
        self._shown = min(room, len(points))
        self._first = self._first if self._first < len(points) else 0
        shown = points[self._first : self._first + room]
        lines = [*head, [], *point_table("POINT", shown, now_s, columns), *below]
        more = f"  space: more ({len(points)} points)" if len(shown) < len(points) else ""
        foot: Line = [(f" {time.strftime('%H:%M:%S', time.localtime(now_s))}  q quits{more}", "dim")]
        return [*lines[: rows - 1], *([] for _ in range(rows - 1 - len(lines))), foot]

    def _points(self, devices: list[Mapping[str, Any]]) -> Iterator[PointLine]:
        for device in devices:
            name, latest = device["device"], device.get("latest", {})
            known, away = self._units.get(name, {}), device["state"] != "online"
            for point in known or {"": ""}:
                trace = self._traces.get((name, point)) or Trace()
                unit = unit_text(known.get(point, ""))
                if away:
                    why = device.get("detail", "") if point == next(iter(known), "") else ""
                    note = printable(why, 200) if why else ""
                    yield PointLine(name, point, device["state"], trace, "", "yellow", note, faded=True)
                    continue
                value = latest.get("values", {}).get(point)
                flag = printable(latest.get("flags", {}).get(point, ""), 40)
                style = "bold cyan" if device.get("at_safe") is False else "bold"
                yield PointLine(name, point, value_text(value), trace, unit, style, flag)
