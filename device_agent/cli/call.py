"""`device-agent call AGENT …`: a small caller built on the official SDK, for people and scripts.

The key comes from --key-file or $BLOCKS_API_KEY, the network's address from $BLOCKS_CDM_URL or --dev.
"""

import argparse
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from device_agent.cli import history
from device_agent.cli.call_client import AgentCaller, Answer, hush, leave, read_key, sdk, use_local_network
from device_agent.cli.call_sessions import drive, watch
from device_agent.cli.common import (
    Exit,
    named_values,
    parse_value,
    print_table,
    run_command,
    span_s,
    styled,
)
from device_agent.cli.show import (
    ack_text,
    clock_time,
    dumps,
    mapping,
    points_of,
    unit_text,
    value_text,
)
from device_agent.errors import AgentError, Rejected
from device_agent.text.printable import printable

ANSWER_LIMIT_S = 60.0
DURATION_MAX_MIN = 43_200

Act = Callable[[AgentCaller, argparse.Namespace], int]


# -- arguments ----------------------------------------------------------------------------------------------


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    call = subparsers.add_parser(
        "call", help="call an agent: read, watch, drive, history", description=__doc__
    )
    call.add_argument("agent", metavar="AGENT", help="the agent's name on the network, such as greenhouse_7")
    _common(call)
    commands = call.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, act: Act, text: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
        _common(parser)
        parser.set_defaults(run=_run, act=act)
        return parser

    read = command("read", _read, "the present reading of devices, of all without one")
    read.add_argument("devices", metavar="DEVICE", nargs="*")
    command("describe", _describe, "devices with their points, units, ranges and actions")
    set_ = command("set", _set, "set a point of a device")
    set_.add_argument("device", metavar="DEVICE")
    set_.add_argument("point", metavar="POINT")
    set_.add_argument("value", metavar="VALUE", help="a number, on, off, true, false, null, or a text")
    set_.add_argument("--for", dest="for_s", metavar="S", type=span_s, help="back to safe after this time")
    do = command("do", _do, "carry out an action of a device")
    do.add_argument("device", metavar="DEVICE")
    do.add_argument("action", metavar="ACTION")
    do.add_argument("args", metavar="NAME=VALUE", nargs="*")
    for parser in (set_, do):
        parser.add_argument("--dry-run", action="store_true", help="only say what would happen")
    stop = command("stop", _stop, "emergency stop: everything safe until its owner releases it")
    stop.set_defaults(dry_run=False)
    history.add_arguments(command("history", _history, "readings from the agent's own record"))
    _session_arguments(command)


def _common(parser: argparse.ArgumentParser) -> None:
    """Options that may stand before or after the command; the later one wins."""

    def option(*names: str, **options: Any) -> None:
        parser.add_argument(*names, default=argparse.SUPPRESS, **options)

    option("--json", action="store_true", help="print JSON")
    option("--key-file", metavar="FILE", type=Path, help="the caller's API key (else $BLOCKS_API_KEY)")
    option("--dev", metavar="URL", help="a local `device-agent dev-network`, such as http://127.0.0.1:8700")
    option("--paid", action="store_true", help="the agent's billing mode is paid")
    option("--timeout", metavar="S", type=span_s, help=f"longest wait for an answer ({ANSWER_LIMIT_S:g} s)")


def _session_arguments(command: Callable[[str, Act, str], argparse.ArgumentParser]) -> None:
    watching = command("watch", watch, "readings as they come, until Ctrl-C")
    watching.add_argument("devices", metavar="DEVICE", nargs="*")
    watching.add_argument(
        "--stream", metavar="NAME", help="this stream alone; a byte stream is passed on raw"
    )
    watching.add_argument("--every", dest="every_s", metavar="S", type=span_s, help="the pace that is wanted")
    watching.add_argument("--for", dest="for_s", metavar="S", type=span_s, help="end after this time")
    watching.add_argument(
        "--format",
        type=_watch_format,
        choices=("table", "json", "csv"),
        help="json: an event a line",
    )
    watching.add_argument("--out", metavar="FILE", type=Path, help="write there instead of standard output")
    driving = command("drive", drive, "send commands over a session, print what became of them")
    driving.add_argument("--command", metavar="JSON", action="append", help="a command; may be repeated")
    driving.add_argument(
        "--stream", metavar="NAME", help="send on this stream (else one that carries the device)"
    )
    driving.add_argument("--readings", action="store_true", help="print readings too")
    for parser in (watching, driving):
        parser.add_argument(
            "--duration", metavar="MIN", type=_minutes, help="length of the session (60; at most 43200)"
        )


def _watch_format(word: str) -> str:
    return "json" if word == "ndjson" else word


def _minutes(text: str) -> int:
    if not re.fullmatch(r"\d{1,5}", text) or not 1 <= int(text) <= DURATION_MAX_MIN:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of minutes from 1 to {DURATION_MAX_MIN}")
    return int(text)


# -- running ------------------------------------------------------------------------------------------------


def _run(args: argparse.Namespace) -> int:
    return leave(run_command(lambda: _called(args), as_json=getattr(args, "json", False)))


def _called(args: argparse.Namespace) -> int:
    for name, usual in (("json", False), ("key_file", None), ("dev", None), ("paid", False)):
        setattr(args, name, getattr(args, name, usual))
    args.timeout = getattr(args, "timeout", ANSWER_LIMIT_S)
    if args.dev is not None:
        use_local_network(args.dev)
    key = read_key(args.key_file)
    sdk()
    hush()
    with AgentCaller(args.agent, key, paid=args.paid) as caller:
        act: Act = args.act
        return act(caller, args)


def _asked(caller: AgentCaller, args: argparse.Namespace, question: Mapping[str, Any]) -> Answer:
    """The answer, where it is `done`. Raises Rejected with the agent's code otherwise."""
    answer = caller.ask(question, args.timeout)
    state = answer.result.get("state")
    if state == "done":
        return answer
    if args.json:
        print(dumps(answer.result, indent=2))
    fault = mapping(answer.result.get("error"))
    code, message = (
        printable(fault.get("code", "internal"), 40),
        printable(fault.get("message", "no reason given")),
    )
    raise Rejected(code, f"{printable(state, 20)}: {code}: {message}")


# -- questions ----------------------------------------------------------------------------------------------


def _read(caller: AgentCaller, args: argparse.Namespace) -> int:
    question: dict[str, Any] = {"op": "read"}
    if args.devices:
        question["devices"] = args.devices
    result = _asked(caller, args, question).result
    known = caller.units(args.timeout)
    readings = result.get("readings")
    readings = list(map(mapping, readings)) if isinstance(readings, list) else []
    if args.json:
        with_units = [{**one, "units": known.get(str(one.get("device")), {})} for one in readings]
        print(dumps({**result, "readings": with_units}, indent=2))
        return Exit.DONE
    rows = []
    for reading in readings:
        at = clock_time(reading.get("at"), date=True)
        for point, value, unit, flag in points_of(reading, known):
            device = printable(reading.get("device"), 40)
            rows.append(
                [device, printable(point, 40), value_text(value), unit_text(unit), at, printable(flag, 40)]
            )
    print_table(["device", "point", "value", "unit", "at", "flag"], rows)
    missing = result.get("unavailable")
    for one in map(mapping, missing if isinstance(missing, list) else ()):
        print(f"{printable(one.get('device'), 40)}: no reading: {printable(one.get('reason'), 200)}")
    return Exit.DONE


def _describe(caller: AgentCaller, args: argparse.Namespace) -> int:
    result = _asked(caller, args, {"op": "describe"}).result
    if args.json:
        print(dumps(result, indent=2))
        return Exit.DONE
    devices = result.get("devices")
    for device in map(mapping, devices if isinstance(devices, list) else ()):
        print(f"{styled(printable(device.get('device'), 40), 'bold')}  {printable(device.get('state'), 20)}")
        for point in map(mapping, device.get("points") or ()):
            print(f"  {_point_text(point)}")
        for action in map(mapping, device.get("actions") or ()):
            named = [printable(mapping(one).get("name"), 40) for one in action.get("arguments") or ()]
            print(f"  do {printable(action.get('name'), 40)}{''.join(f' {name}=…' for name in named)}")
    return Exit.DONE


def _point_text(point: Mapping[str, Any]) -> str:
    words = [
        f"{printable(point.get('name'), 40):<16}",
        unit_text(point.get("unit")) or printable(point.get("type"), 20),
    ]
    low, high = point.get("minimum", point.get("low")), point.get("maximum", point.get("high"))
    if low is not None or high is not None:
        words.append(f"{value_text(low)} to {value_text(high)}")
    if point.get("write"):
        words.append(f"settable, safe: {value_text(point.get('safe'))}")
    return "  ".join(words)


def _set(caller: AgentCaller, args: argparse.Namespace) -> int:
    question = {"op": "set", "device": args.device, "values": {args.point: parse_value(args.value)}}
    if args.for_s is not None:
        question["for_s"] = args.for_s
    return _acknowledged(caller, args, question)


def _do(caller: AgentCaller, args: argparse.Namespace) -> int:
    question = {"op": "do", "device": args.device, "action": args.action, "args": named_values(args.args)}
    return _acknowledged(caller, args, question)


def _stop(caller: AgentCaller, args: argparse.Namespace) -> int:
    return _acknowledged(caller, args, {"op": "stop"})


def _acknowledged(caller: AgentCaller, args: argparse.Namespace, question: Mapping[str, Any]) -> int:
    asked = {**question, "dry_run": True} if args.dry_run else question
    result = _asked(caller, args, asked).result
    print(dumps(result, indent=2) if args.json else ack_text(mapping(result.get("ack"))))
    return Exit.DONE


def _history(caller: AgentCaller, args: argparse.Namespace) -> int:
    args.format = "json" if args.json and args.format is None else args.format

    def ask(question: Mapping[str, Any]) -> bytes:
        answer = _asked(caller, args, question)
        if answer.data is None:
            raise AgentError("the agent has answered without the readings")
        return answer.data

    try:
        return history.show(args, ask)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise AgentError(f"the agent's answer has a bad form ({error})") from error
