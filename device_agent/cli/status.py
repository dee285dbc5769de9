"""`status` and `monitor`: link, sessions, devices, outbox and safe states on one screen."""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from device_agent.cli.common import Exit, Unavailable, config_path, print_json, styled
from device_agent.cli.control import ask_daemon
from device_agent.cli.live import Line, Screen, Span
from device_agent.cli.show import Units, counted, with_unit
from device_agent.clock import undated
from device_agent.config import Config, load
from device_agent.text.printable import printable

EVERY_S = 1.0
# What a process writes as it begins tells nothing of a day.
RATE_AFTER_S = 600


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    status = subparsers.add_parser("status", help="link, sessions, devices, outbox, safe states")
    status.add_argument("--json", action="store_true", help="print JSON")
    status.set_defaults(run=run_status)
    monitor = subparsers.add_parser(
        "monitor", help="status that lives", description="The status, every second, until q or Ctrl-C."
    )
    monitor.add_argument("--json", action="store_true", help="print one line of JSON each second")
    monitor.add_argument("--times", metavar="N", type=_times, help="end after so many")
    monitor.set_defaults(run=run_monitor)


def _times(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) < 10**9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def run_status(args: argparse.Namespace) -> int:
    config = load(config_path(args))
    status = ask_daemon(config, {"op": "status"})
    if args.json:
        print_json(status)
        return Exit.DONE
    for line in status_lines(status, _units(config)):
        spans = ((printable(text, 400), styles) for text, styles in line)
        print("".join(styled(text, *styles.split()) if styles else text for text, styles in spans).rstrip())
    return Exit.DONE


def run_monitor(args: argparse.Namespace) -> int:
    config = load(config_path(args))
    status = ask_daemon(config, {"op": "status"})
    try:
        if args.json or not (sys.stdout.isatty() and sys.stdin.isatty()):
            return _lines(config, status, args)
        return _screen(config, status, args.times)
    except KeyboardInterrupt:
        return Exit.DONE


def _lines(config: Config, status: dict[str, Any] | None, args: argparse.Namespace) -> int:
    """A line each second, for a file or a pipe."""
    left, units = args.times, _units(config)
    while True:
        if args.json:
            print(json.dumps(status, ensure_ascii=False), flush=True)
        else:
            print(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {_line(status, units)}", flush=True)
        left = None if left is None else left - 1
        if left == 0:
            return Exit.DONE
        time.sleep(EVERY_S)
        status = _present(config)


def _units(config: Config) -> Units:
    return {name: {p.name: str(p.unit) for p in config.points(name)} for name in config.devices}


def _line(status: Mapping[str, Any] | None, units: Units) -> str:
    if status is None:
        return "no daemon answers"
    link = status["link"]["state"] if status["link"]["up"] else "link down"
    parts = [f"{link}, {status['outbox']['events']} waiting, {counted(len(status['sessions']), 'session')}"]
    for device in status["devices"]:
        values = _values(device, units) if device["state"] == "online" else device["state"]
        parts.append(f"{device['device']}: {values or device['state']}")
    return " | ".join(parts)


def _screen(config: Config, status: dict[str, Any] | None, times: int | None) -> int:
    units = _units(config)
    with Screen() as screen:
        while True:
            foot: Line = [(f"{time.strftime('%H:%M:%S')}  q quits", "dim")]
            body = [[("no daemon answers: waiting for it", "yellow")]] if status is None else None
            screen.draw([*(body or status_lines(status or {}, units)), [("", "")], foot])
            times = None if times is None else times - 1
            if times == 0 or screen.key(EVERY_S) in ("q", "\x03", "\x04"):
                return Exit.DONE
            status = _present(config)


def _present(config: Config) -> dict[str, Any] | None:
    """The status now; None while the daemon is away, for instance because it is started again."""
    try:
        return dict(ask_daemon(config, {"op": "status"}))
    except Unavailable:
        return None


# -- lines --------------------------------------------------------------------------------------------------


def status_lines(
    status: Mapping[str, Any], units: Units | None = None, now_s: float | None = None
) -> list[list[Span]]:
    """The answer of the daemon as lines of styled text; the units are the configuration's.

    `now_s` (epoch seconds, default: now) is what ages are counted from.
    """
    lines = [[(f"{status['agent']}  ", "bold"), *_link(status["link"])], *_stores(status)]
    if history := status.get("history"):
        day = _size(history["written_bytes_per_day"])
        lost = f", {history['lost']} lost" if history["lost"] else ""
        kept = counted(history["readings"], "reading")
        lines.append([(f"history  {kept}, {_room(history)}, {day} a day written{lost}", "")])
    stop = status.get("emergency_stop", {})
    if stop.get("latched") or stop.get("barred"):
        why = f"pressed ({stop['who']})" if stop["latched"] else stop["barred"]
        lines.append([("stop     ", ""), (printable(why), "red")])
    if guard := status.get("guard"):
        watch: Span = ("on watch", "") if guard["up"] else ("absent", "yellow" if guard["devices"] else "")
        lines.append([("guard    ", ""), watch, (f", {counted(len(guard['devices']), 'actuator')}", "")])
    tasks = (counted(len(status["sessions"]), "session"), counted(status["requests"], "request"))
    lines.append([(f"tasks    {', '.join(tasks)}", "")])
    for session in status["sessions"]:
        streams = ", ".join(session["streams"])
        lines.append([(f"  {printable(session['task'])}  {streams}, {session['remaining_s']} s left", "")])
    return [
        *lines,
        *map(_delegation, status.get("delegations", ())),
        *map(_rule, status.get("rules", ())),
        *map(_alert, status.get("alerts", ())),
        *_buses(status.get("buses", ())),
        *_devices(status["devices"], units or {}, time.time() if now_s is None else now_s),
    ]


def _stores(status: Mapping[str, Any]) -> list[list[Span]]:
    """The outbox, and what the disk is written."""
    outbox = status["outbox"]
    waiting = counted(outbox["events"], "event")
    lines: list[list[Span]] = [
        [(f"outbox   {waiting}, {_room(outbox)}, {outbox['dropped']} dropped", "")],
    ]
    if outbox.get("trouble"):
        lines.append([("outbox   ", ""), (f"kept in memory only: {printable(outbox['trouble'])}", "red")])
    if outbox.get("set_aside"):
        lines.append(
            [("outbox   ", ""), (f"was damaged; set aside: {printable(outbox['set_aside'])}", "yellow")]
        )
    if disk := status.get("disk"):
        rate = f"{_size(disk['written_bytes_a_day'])} a day" if disk["since_s"] >= RATE_AFTER_S else ""
        since = f" in {disk['since_s']} s" if not rate else f", {rate}"
        lines.append([(f"disk     {_size(disk['written_bytes'])} written{since}", "")])
    if why := (disk or {}).get("in_memory"):
        lost = "a reboot releases the emergency stop and forgets commands, outbox and history"
        lines.append([("state    ", ""), (f"{printable(why)}: {lost}", "red")])
    return lines


def _link(link: Mapping[str, Any]) -> list[Span]:
    state, trouble = link["state"], printable(link["trouble"], 500)
    if state == "no network":
        return [(f"{state} ({trouble})", "")]
    if state == "no API key":
        return [(f"not joined: {trouble}", "yellow")]
    up: Span = ("link up", "") if link["up"] else ("link down", "red")
    why = f" ({trouble}), " if trouble else ", "
    losses = f", {counted(link['losses'], 'loss', 'losses')}"
    return [(state, "green" if link["joined"] else "yellow"), (why, ""), up, (losses, "")]


def _buses(buses: Sequence[Mapping[str, Any]]) -> list[list[Span]]:
    """Those that are in trouble, or were: which steps were taken, and how many helped."""
    lines: list[list[Span]] = []
    for bus in buses:
        steps = [
            f"{step} {figures['tried']} ({figures['helped']} helped)"
            for step, figures in bus["recovery"].items()
            if figures["tried"]
        ]
        state = "stuck" if bus.get("stuck") else bus["state"]
        if state == "open" and not steps:
            continue
        why = "" if state == "open" else printable(bus.get("last_error", ""))
        name: Span = (f"bus      {bus['bus']} ", "")
        lines.append([name, (state, "" if state == "open" else "red"), (f"  {', '.join(steps)}  {why}", "")])
    return lines


_PHASES = {"waiting": "to be sent", "asked": "waits for the answer", "open": "until it ends"}


def _delegation(delegation: Mapping[str, Any]) -> list[Span]:
    """One line: its state, and the newest answer, error and command."""
    last, state = delegation.get("last", {}), delegation["state"]
    shown = _PHASES.get(state, state)
    line: list[Span] = [
        (f"asks     {delegation['delegation']}  ", ""),
        (shown, "" if state == "idle" else "cyan"),
    ]
    parts = [f"{delegation['asked_today']} of {delegation['max_per_day']} today"]
    if "may_ask_in_s" in delegation:
        parts.append(f"again in {delegation['may_ask_in_s']} s")
    if "trouble" in delegation:
        line.append((f" ({printable(delegation['trouble'], 100)})", "yellow"))
    if last:
        said = last.get("answer") or last.get("error", {}).get("message", "")
        parts.append(f"{last['state']}{': ' if said else ''}{printable(said, 60)}")
    if ack := last.get("ack"):
        parts.append(f"{printable(last['command'])} {ack['state']}")
    return [*line, (f", {', '.join(parts)}", "")]


def _rule(rule: Mapping[str, Any]) -> list[Span]:
    """One line: whether its condition holds, and what came of its last command."""
    parts = [f"{counted(rule['today'], 'time')} today"]
    if last := rule.get("last"):
        why = f" ({printable(last['error']['message'], 100)})" if "error" in last else ""
        parts.append(f"last {last['state']}{why}")
    holds: Span = ("holds  ", "cyan") if rule.get("holds") else ("", "")
    return [(f"rule     {rule['rule']}  ", ""), holds, (", ".join(parts), "")]


def _alert(alert: Mapping[str, Any]) -> list[Span]:
    """One line: whether it is on, and what waits to be told."""
    parts = [f"{counted(alert['today'], 'time')} today"]
    if alert["waiting"]:
        parts.append(f"{counted(alert['waiting'], 'message')} to be sent")
    if alert["dropped"]:
        parts.append(f"{alert['dropped']} dropped")
    on: Span = ("on  ", "red") if alert["on"] else ("off  ", "")
    trouble = printable(alert.get("trouble", ""), 200)
    return [
        (f"alert    {alert['alert']}  ", ""),
        on,
        (", ".join(parts), ""),
        (f" ({trouble})" if trouble else "", "yellow"),
    ]


def _devices(devices: Sequence[Mapping[str, Any]], units: Units, now_s: float) -> list[list[Span]]:
    rows = [("device", "state", "", "age", "present")]
    for device in devices:
        at_safe = device.get("at_safe")
        safe = "" if at_safe is None else "at safe" if at_safe else "driven"
        present = device.get("detail") or _values(device, units)
        rows.append((device["device"], device["state"], safe, _age(device, now_s), present))
    widths = [max(len(row[n]) for row in rows) + 2 for n in range(4)]
    colours = {"online": "green", "offline": "yellow", "fault": "red", "driven": "cyan"}
    lines: list[list[Span]] = []
    for row, device in zip(rows, ({}, *devices), strict=True):
        cells = [(text.ljust(width), colours.get(text, "")) for text, width in zip(row, widths, strict=False)]
        line: list[Span] = [*cells, (printable(row[4]), "")]
        lines.append(line if device else [(text, "bold") for text, _ in line])
        for about, note in device.get("notes", {}).items():
            if str(note) != device.get("detail"):
                lines.append([(f"  {about.replace('_', ' ')}: {printable(str(note))}", "yellow")])
    return lines


def _age(device: Mapping[str, Any], now_s: float) -> str:
    """Of the newest reading; empty where it has none, or nobody knows the time."""
    at_ms = device.get("latest", {}).get("at", 0)
    age_s = round(now_s - at_ms / 1000)
    if undated(at_ms) or age_s < 0:
        return ""
    for unit, seconds in (("d", 86_400), ("h", 3600), ("min", 60)):
        if age_s >= 2 * seconds:
            return f"{age_s // seconds} {unit}"
    return f"{age_s} s"


def _values(device: Mapping[str, Any], units: Units) -> str:
    latest, known = device.get("latest", {}).get("values", {}), units.get(device["device"], {})
    return ", ".join(f"{name} = {with_unit(value, known.get(name))}" for name, value in latest.items())


def _room(figures: Mapping[str, Any]) -> str:
    return f"{_size(figures['bytes'])} of {_size(figures['max_bytes'])}"


def _size(size_bytes: int) -> str:
    for limit, unit in ((1_000_000, "MB"), (1000, "kB")):
        if size_bytes >= limit:
            return f"{size_bytes / limit:.3g} {unit}"
    return f"{size_bytes} bytes"
