"""`history DEVICE …`: readings from the local record as a table, JSON, CSV or a picture.

From its file where this user may read it (what the daemon still holds in memory is written first), else
through the daemon.
"""

import argparse
import contextlib
import json
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from device_agent.cli.common import (
    Exit,
    Unavailable,
    config_path,
    instant_ms,
    print_table,
    span_s,
    styled,
    write_out,
)
from device_agent.cli.running_daemon import ask_daemon, daemon_answers
from device_agent.cli.show import clock_time, unit_text, value_text
from device_agent.config import Config, load
from device_agent.errors import AgentError, ConfigError, Rejected, StoreError
from device_agent.history.axis import round_step_s
from device_agent.history.error_texts import disabled, no_pillow, too_much, unreadable
from device_agent.text.printable import printable

DAY_S, SHORTEST_MS = 86_400, 10_000
# A table is for reading: about two screens, unless another step is asked for.
TABLE_ROWS = 48
Ask = Callable[[Mapping[str, Any]], bytes]
FORMATS = ("table", "json", "csv", "png")
ENDINGS = {".json": "json", ".csv": "csv", ".png": "png"}


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    history = subparsers.add_parser("history", help="readings from the local record", description=__doc__)
    add_arguments(history)
    history.add_argument("--json", dest="format", action="store_const", const="json", help="--format json")
    history.set_defaults(run=run)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `show` takes."""
    parser.add_argument("devices", metavar="DEVICE", nargs="+")
    when = "ISO 8601 (local time), epoch milliseconds, or an age such as 90m, 24h, 7d"
    usual = "else a day, or since the record begins"
    parser.add_argument("--from", dest="from_ms", metavar="TIME", type=instant_ms, help=f"{when}; {usual}")
    parser.add_argument("--to", dest="to_ms", metavar="TIME", type=instant_ms, help="the same (now)")
    step = parser.add_mutually_exclusive_group()
    step.add_argument(
        "--every", dest="every_s", metavar="S", type=span_s, help="mean, minimum and maximum of each step"
    )
    parser.add_argument(
        "--zone",
        help="of whose days the steps of --every 1d are, such as Europe/Berlin (the device's, or UTC)",
    )
    step.add_argument("--all", action="store_true", help="in a table: every row that is recorded")
    parser.add_argument("--format", choices=FORMATS, help="else by --out's ending, else a table")
    parser.add_argument("--out", metavar="FILE", type=Path, help="write there instead of standard output")


def run(args: argparse.Namespace) -> int:
    return show(args, _source(config_path(args)), "local")


def show(args: argparse.Namespace, ask: Ask, days_of: str | None = None) -> int:
    """Ask, then print or write; `ask` returns the readings that answer a question of op `history`.

    `days_of` is the zone of steps of whole days where --zone does not say it; None: UTC.
    """
    form = args.format or (ENDINGS.get(args.out.suffix.lower(), "csv") if args.out else "table")
    if form == "table" and args.out is not None:
        raise AgentError("a table goes to the terminal: leave --out away, or choose --format csv")
    if form == "png" and args.out is None and sys.stdout.isatty():
        raise AgentError("a picture does not go to a terminal: name a file with --out")
    data = ask(_question(args, form, ask, days_of))
    if args.out is not None:
        write_out(args.out, data)
        print(f"{len(data)} bytes written to {args.out}")
    elif form == "table":
        _print_rows(json.loads(data))
    elif sys.stdout.isatty():  # which gets no control characters
        for line in data.decode("utf-8", "replace").splitlines():
            print(printable(line, 100_000))
    else:
        sys.stdout.buffer.write(data)
    return Exit.DONE


def _question(args: argparse.Namespace, form: str, ask: Ask, days_of: str | None) -> dict[str, Any]:
    to_ms = time.time_ns() // 1_000_000 if args.to_ms is None else args.to_ms
    question = {"op": "history", "devices": args.devices, "to": to_ms}
    from_ms = _begin_ms(question, ask) if args.from_ms is None else args.from_ms
    if from_ms >= to_ms:
        raise Rejected("invalid_value", "--from is not before --to")
    every_s = args.every_s
    if form == "table" and every_s is None and not args.all:
        every_s = _step_s(from_ms, to_ms)
    zone = args.zone or (days_of if every_s and not every_s % DAY_S else None)
    more = {name: one for name, one in (("every_s", every_s), ("zone", zone)) if one is not None}
    return {**question, "from": from_ms, **more, "format": "json" if form == "table" else form}


def _step_s(from_ms: int, to_ms: int) -> float:
    return float(round_step_s((to_ms - from_ms) / 1000, TABLE_ROWS))


def _begin_ms(question: Mapping[str, Any], ask: Ask) -> int:
    """A day before the end, or where the record begins: nearer in each step, since rows begin early."""
    to_ms = int(question["to"])
    from_ms = to_ms - DAY_S * 1000
    while True:
        every_s = _step_s(from_ms, to_ms)
        found = json.loads(ask({**question, "from": from_ms, "every_s": every_s, "format": "json"}))
        first_ms = min((reading["at"] for reading in found["readings"]), default=from_ms)
        if first_ms <= (from_ms + to_ms) / 2 or to_ms - first_ms < SHORTEST_MS:
            return max(from_ms, min(first_ms, to_ms - SHORTEST_MS)) if found["readings"] else from_ms
        from_ms = first_ms


# -- asking -------------------------------------------------------------------------------------------------


def _source(file: Path) -> Ask:
    """Who is asked: this user's own eyes first, the daemon where its file has a fault by now."""
    try:
        return partial(_answer, file, load(file))
    except ConfigError:
        if not daemon_answers(file):
            raise
        return lambda question: bytes(ask_daemon(file, question)["data"])


def _answer(file: Path, config: Config, question: Mapping[str, Any]) -> bytes:
    if not config.history.enabled:
        raise Rejected("invalid_value", disabled())
    path = config.state.directory / "history.db"
    if not os.access(path, os.R_OK):
        try:
            return bytes(ask_daemon(file, question)["data"])
        except Unavailable as error:
            why = "cannot be read by this user" if _there(path) else "has not been begun"
            raise Unavailable(f"{error}; and the history in {path} {why}") from error
    # Where no daemon runs, nothing is in memory.
    with contextlib.suppress(Unavailable):
        ask_daemon(file, {"op": "history_flush"})
    return _from_file(config, path, question)


def _there(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:
        return True


def _from_file(config: Config, path: Path, question: Mapping[str, Any]) -> bytes:
    from device_agent.history.export import export
    from device_agent.history.query import Query, TooMuch, checked_zone

    _check_names(config, path, question["devices"])
    here = [name for name in question["devices"] if name in config.devices]
    query = Query(
        str(path),
        tuple(dict.fromkeys(question["devices"])),
        question["from"],
        question["to"],
        max(1, round(question["every_s"] * 1000)) if "every_s" in question else 0,
        question["format"],
        {name: {p.name: str(p.unit) for p in config.points(name)} for name in here},
        config.agent.title,
        zone=checked_zone(question.get("zone"), question.get("every_s")),
        formerly={name: list(config.devices[name].formerly) for name in here},
    )
    try:
        return export(query).data
    except TooMuch:
        raise Rejected("invalid_value", too_much(query.limit_bytes)) from None
    except ImportError:
        raise Rejected("invalid_value", no_pillow()) from None
    except sqlite3.Error as error:
        raise StoreError(unreadable(str(path), error)) from error


def _check_names(config: Config, path: Path, names: Sequence[str]) -> None:
    """Raises Rejected for a device that is not configured, and of which nothing was recorded either."""
    from device_agent.store.history.history_file import HistoryReader

    if not (unknown := [name for name in names if name not in config.devices]):
        return
    with HistoryReader(path) as reader:
        recorded = [name for name in reader.devices() if name not in config.devices]
    for name in unknown:
        if name not in recorded:
            known = ", ".join(config.devices) or "none"
            before = f"; recorded before: {', '.join(recorded)}" if recorded else ""
            raise Rejected("unknown_device", f"there is no device {name!r}; there are: {known}{before}")


# -- showing ------------------------------------------------------------------------------------------------


def _print_rows(answer: Mapping[str, Any]) -> None:
    readings = answer["readings"]
    if not readings:
        print("no readings in this time")
        return
    columns = list(dict.fromkeys((r["device"], point) for r in readings for point in r["values"]))
    several = len({device for device, _ in columns}) > 1
    heads = []
    for device, point in columns:
        unit = unit_text(answer["units"].get(device, {}).get(point, ""))
        heads.append(f"{device + ' ' if several else ''}{point}{f' [{unit}]' if unit else ''}")
    rows: dict[int, dict[tuple[str, str], str]] = {}
    for reading in readings:
        cells = rows.setdefault(reading["at"], {})
        for point in reading["values"]:
            cells[(reading["device"], point)] = _cell(reading, point)
    body = [[_time(at), *(cells.get(column, "") for column in columns)] for at, cells in rows.items()]
    print_table(["time", *heads], body)
    if answer["every_s"]:
        step = f"{answer['every_s']:g} s" if "zone" not in answer else f"days ({answer['zone']})"
        print(styled(f"means of {step}, with minimum and maximum", "dim"))


def _time(at_ms: int) -> str:
    text = clock_time(at_ms, date=True)
    return text.removesuffix(".000")


def _cell(reading: Mapping[str, Any], point: str) -> str:
    value = reading["values"][point]
    thinned = reading.get("thinned", {"minimum": {}, "maximum": {}})
    low, high = thinned["minimum"].get(point), thinned["maximum"].get(point)
    if low is None:
        flag = reading.get("flags", {}).get(point)
        return f"{value_text(value)} {printable(flag)}" if flag else value_text(value)
    if low == high:
        return value_text(low)
    if isinstance(low, bool):
        return f"on in {value:.0%}"
    return f"{value:.6g}  ({value_text(low)} to {value_text(high)})"
