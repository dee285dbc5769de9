"""`status`: link, sessions, devices, outbox and safe states on one screen."""

import argparse
import time
from collections.abc import Mapping, Sequence
from typing import Any

from device_agent.cli.common import Exit, config_path, print_json, styled
from device_agent.cli.live import Span
from device_agent.cli.running_daemon import require_answer, units_of_daemon
from device_agent.cli.show import Units, counted, span_text, with_unit
from device_agent.clock import undated
from device_agent.text.printable import printable

# What a process writes as it begins tells nothing of a day.
RATE_AFTER_S = 600


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    status = subparsers.add_parser("status", help="link, sessions, devices, outbox, safe states")
    status.add_argument("--json", action="store_true", help="print JSON")
    status.set_defaults(run=run_status)


def run_status(args: argparse.Namespace) -> int:
    file = config_path(args)
    status, units = require_answer(file, {"op": "status"}), units_of_daemon(file)
    if args.json:
        print_json({**status, "units": units})
        return Exit.DONE
    for line in status_lines(status, units):
        spans = ((printable(text, 400), styles) for text, styles in line)
        print("".join(styled(text, *styles.split()) if styles else text for text, styles in spans).rstrip())
    return Exit.DONE


# -- lines --------------------------------------------------------------------------------------------------


def status_lines(
    status: Mapping[str, Any], units: Units | None = None, now_s: float | None = None
) -> list[list[Span]]:
    """The answer of the daemon as lines of styled text; the units are its too.

    `now_s` (epoch seconds, default: now) is what ages are counted from.
    """
    devices = _devices(status["devices"], units or {}, time.time() if now_s is None else now_s)
    return [*head_lines(status), *devices]


def head_lines(status: Mapping[str, Any]) -> list[list[Span]]:
    """Everything but the devices."""
    lines: list[list[Span]] = [[(f"{status['agent']}  ", "bold"), *_link(status["link"])]]
    if blind := status["link"].get("blind"):
        lines.append([("link     ", ""), (printable(blind, 500), "yellow")])
    lines += _configuration(status.get("configuration", {}))
    if broker := status.get("broker"):
        up: Span = ("up", "") if broker["up"] else ("down", "red")
        lines.append([("broker   ", ""), up, (f", {counted(broker['losses'], 'loss', 'losses')}", "")])
    lines += _stores(status)
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
        streams, left = ", ".join(session["streams"]), span_text(session["remaining_s"])
        lines.append([(f"  {printable(session['task'])}  {streams}, {left} left", "")])
    return [
        *lines,
        *map(_delegation, status.get("delegations", ())),
        *map(_rule, status.get("rules", ())),
        *map(_alert, status.get("alerts", ())),
        *_buses(status.get("buses", ())),
    ]


def _configuration(file: Mapping[str, Any]) -> list[list[Span]]:
    """What the file says and is not in force."""
    lines: list[list[Span]] = []
    if refused := file.get("refused"):
        more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
        why = f"the last reload was refused: {printable(refused[0], 500)}{more}"
        lines.append([("config   ", ""), (why, "red")])
    if waiting := file.get("waits_for_restart"):
        lines.append([("config   ", ""), (f"waits for a restart: {', '.join(waiting)}", "yellow")])
    return lines


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
        by = ", ".join(
            f"{name} {_size(part['written_bytes_per_day'])}"
            for name in ("outbox", "history", "journal")
            if (part := status.get(name)) and part.get("written_bytes_per_day")
        )
        stores = f" ({by})" if by and rate else ""
        lines.append([(f"disk     {_size(disk['written_bytes'])} written{since}{stores}", "")])
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
        present = device.get("detail") or values_text(device, units)
        rows.append((device["device"], device["state"], safe, _age(device, now_s), present))
    widths = [max(len(row[n]) for row in rows) + 2 for n in range(4)]
    colours = {"online": "green", "offline": "yellow", "fault": "red", "driven": "cyan"}
    lines: list[list[Span]] = []
    for row, device in zip(rows, ({}, *devices), strict=True):
        cells = [(text.ljust(width), colours.get(text, "")) for text, width in zip(row, widths, strict=False)]
        line: list[Span] = [*cells, (printable(row[4]), "")]
        lines.append(line if device else [(text, "bold") for text, _ in line])
        if by := driven(device):
            lines.append([(f"  {by}", "cyan")])
        for about, note in device.get("notes", {}).items():
            if str(note) != device.get("detail"):
                lines.append([(f"  {about.replace('_', ' ')}: {printable(str(note))}", "yellow")])
    return lines


def driven(device: Mapping[str, Any]) -> str:
    """`valve is driven by the owner, for 35 s, safe in 9 min`; empty where it is at its safe value."""
    if device.get("at_safe") is not False:
        return ""
    parts = [f"by {printable(device['driven_by'], 100)}"] if "driven_by" in device else []
    parts += [f"for {span_text(device['away_s'])}"] if "away_s" in device else []
    parts += [f"safe in {span_text(device['safe_in_s'])}"] if "safe_in_s" in device else []
    return f"{device['device']} is driven {', '.join(parts)}".rstrip()


def _age(device: Mapping[str, Any], now_s: float) -> str:
    """Of the newest reading; empty where it has none, or nobody knows the time."""
    at_ms = device.get("latest", {}).get("at", 0)
    age_s = now_s - at_ms / 1000
    return "" if undated(at_ms) or age_s < -0.5 else span_text(age_s)


def values_text(device: Mapping[str, Any], units: Units) -> str:
    """`temperature = 21.5 °C, humidity = 45 %`"""
    latest, known = device.get("latest", {}).get("values", {}), units.get(device["device"], {})
    return ", ".join(f"{name} = {with_unit(value, known.get(name))}" for name, value in latest.items())


def _room(figures: Mapping[str, Any]) -> str:
    return f"{_size(figures['bytes'])} of {_size(figures['max_bytes'])}"


def _size(size_bytes: int) -> str:
    for limit, unit in ((1_000_000, "MB"), (1000, "kB")):
        if size_bytes >= limit:
            return f"{size_bytes / limit:.3g} {unit}"
    return f"{size_bytes} bytes"
