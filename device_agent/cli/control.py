"""`read`, `set`, `do`, `safe`, `estop`, `release`: through the running daemon's control socket.

`read`, `set`, `do` and `safe` use the hardware directly where no daemon runs; it has one owner at a time.
"""

import argparse
import logging
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from device_agent.cli.common import (
    Exit,
    Unavailable,
    config_path,
    named_values,
    parse_value,
    print_json,
    print_table,
    said,
    styled,
)
from device_agent.cli.running_daemon import ask_daemon, require_answer, units_of_daemon
from device_agent.cli.show import Units, ack_text, unit_text, units_of, units_of_description, value_text
from device_agent.config import Config, load
from device_agent.errors import BusError, DriverError, Fault, Rejected


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    read = subparsers.add_parser("read", help="the present reading of devices, or of all")
    read.add_argument("devices", metavar="DEVICE", nargs="*", help="none: all that have something to read")
    read.set_defaults(run=run_read)
    set_ = subparsers.add_parser("set", help="set a point of a device")
    set_.add_argument("device", metavar="DEVICE")
    set_.add_argument("point", metavar="POINT")
    set_.add_argument("value", metavar="VALUE", help="a number, true, false, null, or a text")
    set_.set_defaults(run=run_set)
    do = subparsers.add_parser("do", help="carry out an action of a device")
    do.add_argument("device", metavar="DEVICE")
    do.add_argument("action", metavar="ACTION")
    do.add_argument("args", metavar="NAME=VALUE", nargs="*")
    do.add_argument("--out", metavar="FILE", type=Path, help="where the file that comes of it goes")
    do.set_defaults(run=run_do)
    safe = subparsers.add_parser("safe", help="put every actuator in its safe state")
    safe.set_defaults(run=run_safe)
    estop = subparsers.add_parser("estop", help="emergency stop: everything safe until it is released")
    estop.set_defaults(run=run_estop)
    release = subparsers.add_parser("release", help="end the emergency stop")
    release.set_defaults(run=run_release)
    for parser in (set_, do):
        parser.add_argument("--dry-run", action="store_true", help="only say what would happen")
    for parser in (read, set_, do, safe, estop, release):
        parser.add_argument("--json", action="store_true", help="print JSON")


# -- reading ----------------------------------------------------------------------------------------------


def _without_log() -> None:
    """One question needs no log; what went wrong is in the answer."""
    from device_agent.cli.run import configure_log

    configure_log("text", logging.CRITICAL)


def run_read(args: argparse.Namespace) -> int:
    file = config_path(args)
    try:
        units: Units = units_of_description(ask_daemon(file, {"op": "describe"}))
        read = partial(_read_through_daemon, file)
    except Unavailable:
        config = load(file)
        units, read = units_of(config), partial(_read_directly, config)

    def with_units(name: str) -> dict[str, Any]:
        return {**read(name), "units": units[name]}

    if len(args.devices) == 1:
        _show_reading(with_units(args.devices[0]), as_json=args.json)
        return Exit.DONE
    readings: list[Mapping[str, Any]] = []
    for name in args.devices or [name for name, points in units.items() if points]:
        try:
            readings.append(with_units(name))
        except (Rejected, BusError, DriverError) as error:
            fault = getattr(error, "fault", None) or Fault(getattr(error, "reason", "internal"), str(error))
            readings.append({"device": name, "error": fault.members()})
        if not args.json:
            _show_reading(readings[-1], as_json=False)
    if args.json:
        print_json(readings)
    return Exit.FAILED if any("error" in reading for reading in readings) else Exit.DONE


def _read_through_daemon(file: Path, device: str) -> dict[str, Any]:
    return dict(ask_daemon(file, {"op": "read", "device": device}))


def _read_directly(config: Config, device: str) -> dict[str, Any]:
    from device_agent.operate.standalone_control import read_directly

    _without_log()
    return read_directly(config, device)


def _show_reading(reading: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(reading)
        return
    device = reading["device"]
    if "error" in reading:
        print(f"{styled(device, 'bold')}  {reading['error']['message']}")
        return
    units, flags = reading["units"], reading.get("flags", {})
    rows = [
        [name, value_text(value), unit_text(units.get(name)), flags.get(name, "")]
        for name, value in reading["values"].items()
    ]
    print(f"{styled(device, 'bold')}  {_when(reading['at'])}")
    print_table(["point", "value", "unit", "flag"], rows)


# -- driving ----------------------------------------------------------------------------------------------


def run_set(args: argparse.Namespace) -> int:
    question = {"op": "set", "device": args.device, "values": {args.point: parse_value(args.value)}}
    return _drive(args, question)


def run_do(args: argparse.Namespace) -> int:
    question = {"op": "do", "device": args.device, "action": args.action, "args": named_values(args.args)}
    return _drive(args, question, args.out)


def _drive(args: argparse.Namespace, question: Mapping[str, Any], out: Path | None = None) -> int:
    file = config_path(args)
    units = partial(units_of_daemon, file)
    if args.dry_run:
        # Only the daemon knows who drives, and since when.
        return _show_ack(
            units, question, require_answer(file, {**question, "dry_run": True}), as_json=args.json
        )
    try:
        ack = ask_daemon(file, question)
    except Unavailable:
        return _drive_directly(load(file), question, out, as_json=args.json)
    return _show_ack(units, question, _saved(ack, out), as_json=args.json)


def _saved(ack: Mapping[str, Any], out: Path | None) -> dict[str, Any]:
    """Writes the file that came of an action, under its own name where no other is wished."""
    if "file" not in ack:
        return dict(ack)
    file = ack["file"]
    path = out or Path(Path(file["name"]).name)
    path.write_bytes(file["data"])
    saved = {"name": str(path), "mime_type": file["mime_type"], "size_bytes": len(file["data"])}
    return {**ack, "file": saved}


def _drive_directly(config: Config, question: Mapping[str, Any], out: Path | None, *, as_json: bool) -> int:
    """Held in the foreground: without a daemon nobody else watches what was moved."""
    from device_agent.operate.standalone_control import drive_directly

    reported = False
    units = partial(units_of, config)

    def held(ack: Mapping[str, Any]) -> None:
        nonlocal reported
        reported = True
        _show_ack(units, question, _saved(ack, out), as_json=as_json)
        sys.stdout.flush()
        limit_s = getattr(config.devices[str(question["device"])], "max_on_s", None)
        limit = "" if limit_s is None else f", at most {limit_s:g} s"
        print(f"no daemon runs: held until Ctrl-C{limit}, then safe", file=sys.stderr, flush=True)

    _without_log()
    ack = drive_directly(config, question, held)
    return Exit.DONE if reported else _show_ack(units, question, _saved(ack, out), as_json=as_json)


def run_safe(args: argparse.Namespace) -> int:
    return _make_safe(args, "safe")


def run_estop(args: argparse.Namespace) -> int:
    return _make_safe(args, "estop")


def run_release(args: argparse.Namespace) -> int:
    stop = require_answer(config_path(args), {"op": "release"})
    return said(args, stop, f"released{', but ' + stop['barred'] if 'barred' in stop else ''}")


def _make_safe(args: argparse.Namespace, op: str) -> int:
    file = config_path(args)
    try:
        done = ask_daemon(file, {"op": op})
    except Unavailable:
        config = load(file)
        if op != "safe":
            raise
        from device_agent.operate.standalone_control import safe_directly

        _without_log()
        done = safe_directly(config)
    if args.json:
        print_json(done)
    elif not done:
        print("there is no actuator here")
    else:
        print_table(["device", "safe"], [[name, "yes" if ok else "NO"] for name, ok in done.items()])
    return Exit.DONE if all(done.values()) else Exit.FAILED


# -- showing ------------------------------------------------------------------------------------------------


def _show_ack(
    units: Callable[[], Units], question: Mapping[str, Any], ack: Mapping[str, Any], *, as_json: bool
) -> int:
    if as_json:
        print_json(ack)
    elif ack["state"] == "done" and "file" in ack:
        print(f"done: {ack['file']['name']}, {ack['file']['size_bytes']} bytes")
    elif ack["state"] == "done":
        print(ack_text({**ack, "device": question["device"]}, units()))
    if ack["state"] == "done":
        return Exit.DONE
    fault = Fault.from_members(ack.get("error", {}))
    raise Rejected(fault.code, f"{ack['state']}: {fault.code}: {fault.message}")


def _when(at_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_ms / 1000))
