"""Values, units and events of an agent as text for people. What comes from the network is untrusted."""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from device_agent.config.unit_codes import DISPLAY_UNITS
from device_agent.text.printable import printable

if TYPE_CHECKING:
    from device_agent.config import Config

Units = Mapping[str, Mapping[str, str]]
"""Device to point to unit."""


def unit_text(unit: object) -> str:
    """A UCUM unit as people write it."""
    text = printable(unit or "", 20)
    return DISPLAY_UNITS.get(text, text)


def value_text(value: object) -> str:
    """A value as people read it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:.7g}"
    return printable(value, 120)


def counted(count: int, one: str, many: str = "") -> str:
    """`1 loss`, `2 losses`; without `many` an s is added."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def span_text(span_s: float, *, tenths: bool = False) -> str:
    """`3 s`, `90 s`, `10 min`, `2 h`, `3 d`; with `tenths` below ten seconds `3.2 s`."""
    if tenths and span_s < 10:
        return f"{max(0.0, span_s):.1f} s"
    for unit, seconds in (("d", 86_400), ("h", 3600), ("min", 60)):
        if span_s >= 2 * seconds:
            return f"{int(span_s // seconds)} {unit}"
    return f"{span_s:.0f} s"


def with_unit(value: object, unit: object) -> str:
    """`21.5 °C`, `45 %`, `on`."""
    text, suffix = value_text(value), unit_text(unit)
    return f"{text} {suffix}" if suffix and value is not None else text


def dumps(value: object, indent: int | None = None) -> str:
    """JSON in which nothing but ASCII remains, so that a terminal is safe and a program loses nothing."""
    return json.dumps(value, indent=indent, ensure_ascii=True)


def note(text: str) -> None:
    """A remark that is no data."""
    print(text, file=sys.stderr, flush=True)


def mapping(value: object) -> Mapping[str, Any]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def units_of(config: "Config") -> Units:
    """Of the configured devices."""
    return {name: {p.name: str(p.unit) for p in config.points(name)} for name in config.devices}


def units_of_card(card: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Units by device and point, from the stream schemas of a card."""
    units: dict[str, dict[str, str]] = {}
    for stream in mapping(card.get("streams")).values():
        for name in ("schema", "outboundSchema"):
            for form in _forms(mapping(stream).get(name)):
                device = mapping(form.get("device"))
                points = mapping(mapping(form.get("values")).get("properties"))
                found = {p: str(mapping(s).get("unit", "")) for p, s in points.items()}
                alike = device.get("enum", [device.get("const")])
                for one in alike if isinstance(alike, list) else ():
                    units.setdefault(str(one), {}).update(found)
    return units


def _forms(schema: object) -> Iterator[Mapping[str, Any]]:
    """The properties of each alternative of a schema, and of theirs."""
    choices = mapping(schema).get("oneOf")
    for choice in choices if isinstance(choices, list) else ():
        yield mapping(mapping(choice).get("properties"))
        yield from _forms(choice)


def units_of_description(devices: object) -> dict[str, dict[str, str]]:
    """Units by device and point, from the answer to `describe`."""
    units = {}
    for device in devices if isinstance(devices, list) else ():
        points = mapping(device).get("points")
        units[str(mapping(device).get("device"))] = {
            str(mapping(point).get("name")): str(mapping(point).get("unit", ""))
            for point in (points if isinstance(points, list) else ())
        }
    return units


def clock_time(at_ms: object, *, date: bool = False) -> str:
    """Local time of an event."""
    if isinstance(at_ms, bool) or not isinstance(at_ms, int | float) or not 0 <= at_ms < 2**47:
        return "--:--:--"
    form = "%Y-%m-%d %H:%M:%S" if date else "%H:%M:%S"
    return f"{time.strftime(form, time.localtime(at_ms / 1000))}.{int(at_ms) % 1000:03d}"


def points_of(event: Mapping[str, Any], units: Units) -> Iterator[tuple[str, Any, str, str]]:
    """Point, value, unit, flag of each value of a reading."""
    known = units.get(str(event.get("device")), {})
    flags = mapping(event.get("flags"))
    for point, value in mapping(event.get("values")).items():
        yield str(point), value, known.get(point, ""), str(flags.get(point, ""))


def sentence(event: object, units: Units) -> str:
    """One event as a line for people."""
    if not isinstance(event, dict):
        return f"not an event: {printable(dumps(event))}"
    at, device = clock_time(event.get("at")), printable(event.get("device", ""), 40)
    match event.get("kind"):
        case "reading":
            values = "  ".join(
                f"{printable(point, 40)} {with_unit(value, unit)}{flag and f' ({printable(flag, 40)})'}"
                for point, value, unit, flag in points_of(event, units)
            )
            text = f"{device:<12} {values}"
        case "status":
            text = f"{device:<12} is {printable(event.get('state'))}{_because(event.get('reason'))}"
        case "gap":
            count = event.get("count")
            many = "an unknown number of" if count is None else printable(count)
            text = f"{device or 'gap':<12} {many} readings are missing" + _because(event.get("reason"))
        case "ack":
            text = f"ack {printable(event.get('id', ''), 40)}: {ack_text(event, units)}"
        case "control":
            text = f"{printable(event.get('about'))}: {_control(event)}"
        case kind:
            text = f"{printable(kind)}: {printable(dumps(event))}"
    return f"{at}  {text}{'  (late)' if event.get('late') is True else ''}"


def ack_text(ack: Mapping[str, Any], units: Units | None = None) -> str:
    """What became of a command."""
    known = (units or {}).get(str(ack.get("device")), {})
    applied = ", ".join(
        f"{printable(point, 40)} = {with_unit(value, known.get(point, ''))}"
        for point, value in mapping(ack.get("applied")).items()
    )
    state = printable(ack.get("state", "unknown"), 20)
    if state == "done" and ack.get("dry_run") is True:
        return "would be done" + (", after a hand-over by way of safe" if ack.get("hand_over") else "")
    if state == "done":
        if ack.get("applied") == {}:
            applied = "sent, and the far end does not confirm it"
        seen = " (read back)" if ack.get("verified") is True else ""
        again = " (this id was done before; nothing moved)" if ack.get("repeated") else ""
        return f"done{applied and f': {applied}'}{seen}{again}"
    fault = mapping(ack.get("error"))
    code, message = fault.get("code", "internal"), fault.get("message", "no reason given")
    return f"{state}: {printable(code, 40)}: {printable(message)}"


def _control(event: Mapping[str, Any]) -> str:
    if event.get("about") == "session":
        devices = event.get("devices")
        return "carries " + printable(", ".join(map(str, devices)) if isinstance(devices, list) else devices)
    if event.get("about") == "delegation":
        return _delegation(event)
    if event.get("ok") is True:
        return "done"
    fault = mapping(event.get("error"))
    return f"refused: {printable(fault.get('code'), 40)}: {printable(fault.get('message'))}"


def _delegation(event: Mapping[str, Any]) -> str:
    """A delegation: its state, its answer or error, and the result of its command."""
    text = f"{printable(event.get('delegation'), 64)} {printable(event.get('state'), 20)}"
    message = event.get("answer") or mapping(event.get("error")).get("message") or event.get("cause") or ""
    text += f": {printable(message)}" if message else ""
    if event.get("command"):
        text += f" [{printable(event['command'], 64)}: {ack_text(mapping(event.get('ack')))}]"
    return text


def _because(reason: object) -> str:
    return f" ({printable(reason)})" if reason else ""
