"""`device-agent board`: run a simulated board, show it, and change the world around it."""

import argparse
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from device_agent.cli.common import Exit, Unavailable, config_path, print_json, print_table
from device_agent.errors import AgentError, BusGone

BOARD_VARIABLE = "DEVICE_AGENT_BOARD"
LEVELS = {"high": True, "low": False}


def register(subparsers: Any) -> None:
    board = subparsers.add_parser("board", help="the simulated board")
    commands = board.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, act: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = commands.add_parser(name, help=text)
        parser.add_argument("--socket", metavar="PATH", type=Path, help=f"the board (else ${BOARD_VARIABLE})")
        parser.set_defaults(run=act)
        return parser

    run = command("run", _run, "run a board for a configuration")
    run.add_argument("--config", metavar="FILE", default=argparse.SUPPRESS, help="the configuration")
    run.add_argument("--record", metavar="FILE", type=Path, help="write what moves, as JSON lines")
    run.add_argument("--until-last-user", action="store_true", help="end after the last user has gone")
    run.add_argument("--private", action="store_true", help=argparse.SUPPRESS)
    command("show", _show, "levels, physical values, ports, faults").add_argument(
        "--json", action="store_true", help="print JSON"
    )
    pin = command("pin", _pin, "drive an input")
    pin.add_argument("bus")
    pin.add_argument("line", help="offset, or a name such as GPIO17")
    pin.add_argument("level", choices=tuple(LEVELS))
    chip = command("chip", _chip, "set physical quantities of a chip")
    chip.add_argument("device")
    chip.add_argument("quantities", nargs="+", metavar="POINT=VALUE", type=_assignment)
    reset = command("reset", _reset, "a chip loses its power for a moment")
    reset.add_argument("device")
    feed = command("feed", _feed, "bytes from a serial port's far end")
    feed.add_argument("bus")
    feed.add_argument(
        "text", type=unescaped, help=r"takes the escapes of a Python string, such as \n or \x02"
    )
    sent = command("sent", _sent, "what the host has sent to a serial port")
    sent.add_argument("bus")
    sent.add_argument("--json", action="store_true", help="print JSON")
    fault = command("fault", _fault, "break something")
    fault.add_argument("bus")
    fault.add_argument("kind", help="unplug, replug, nack, stuck, slow, noise, frozen or corrupt")
    fault.add_argument(
        "--for", dest="for_s", metavar="S", type=_duration_s, help="seconds; else until healed"
    )
    fault.add_argument("--device", metavar="D", help="one device instead of the whole bus")
    heal = command("heal", _heal, "end all faults")
    heal.add_argument("bus", nargs="?")


# -- arguments --------------------------------------------------------------------------------------------


def unescaped(text: str) -> bytes:
    r"""The bytes of a text with the escapes of a Python string; `\xNN` is that byte, letters are UTF-8."""
    try:
        characters = text.encode().decode("unicode_escape")
    except UnicodeDecodeError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no text with a Python string's escapes: {error.reason}"
        ) from None
    return b"".join(bytes((ord(c),)) if ord(c) < 256 else c.encode() for c in characters)


def escaped(data: bytes) -> str:
    """Bytes as `feed` would take them."""
    return data.decode("latin-1").encode("unicode_escape").decode("ascii")


def _assignment(text: str) -> tuple[str, str]:
    point, equals, value = text.partition("=")
    if not equals or not point:
        raise argparse.ArgumentTypeError(f"{text!r} is not POINT=VALUE, such as temperature=21.5")
    return point, value


def _duration_s(text: str) -> float:
    if not re.fullmatch(r"\d+(\.\d+)?", text) or float(text) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return float(text)


def _path(args: argparse.Namespace) -> Path:
    named = args.socket or os.environ.get(BOARD_VARIABLE)
    if not named:
        raise Unavailable(f"which board? Name its socket with --socket, or in ${BOARD_VARIABLE}")
    return Path(named)


def _ask(args: argparse.Namespace, op: str, *words: Any) -> Any:
    """One call to the board. Raises Unavailable when none answers, AgentError for what it refuses."""
    from device_agent.testing.board.link import SocketLink
    from device_agent.testing.board.server import STIMULUS

    link: SocketLink | None = None
    try:
        link = SocketLink(_path(args), STIMULUS)
        return link.call(op, *words)
    except BusGone as error:
        raise Unavailable(str(error)) from None
    except ValueError as error:
        raise AgentError(str(error)) from None
    finally:
        if link is not None:
            link.close()


# -- commands ---------------------------------------------------------------------------------------------


def _run(args: argparse.Namespace) -> int:
    from device_agent.testing.board.process import run_board

    run_board(
        _path(args),
        config_path(args),
        record=args.record,
        until_last_user=args.until_last_user,
        private=args.private,
    )
    return Exit.DONE


def _show(args: argparse.Namespace) -> int:
    shown = _ask(args, "show")
    if args.json:
        print_json(shown)
        return Exit.DONE
    for name, bus in shown["buses"].items():
        faults = ", ".join(" ".join(str(word) for word in fault.values()) for fault in bus["faults"])
        print(f"{name} ({bus['kind']})" + (f": {faults}" if faults else ""))
        if bus["kind"] == "serial":
            print(f"  held by {bus['holder'] or 'nobody'}; sent {escaped(bus['sent'].encode('latin-1'))!s}")
    lines = [(name, line) for name, bus in shown["buses"].items() for line in bus.get("lines", ())]
    if lines:
        print()
        print_table(
            ("BUS", "LINE", "LEVEL", "DIRECTION", "HELD BY", "SET BY"),
            [
                (
                    name,
                    str(li["line"]),
                    str(li["level"]),
                    li["direction"],
                    ", ".join(li["holders"]) or "-",
                    li["by"],
                )
                for name, li in lines
            ],
        )
    values = [
        (device, point, str(value))
        for device, state in shown["devices"].items()
        for point, value in state["values"].items()
    ]
    if values:
        print()
        print_table(("DEVICE", "QUANTITY", "VALUE"), values)
    return Exit.DONE


def _pin(args: argparse.Namespace) -> int:
    _ask(args, "pin", args.bus, args.line, LEVELS[args.level])
    return Exit.DONE


def _chip(args: argparse.Namespace) -> int:
    _ask(args, "set", args.device, dict(args.quantities))
    return Exit.DONE


def _reset(args: argparse.Namespace) -> int:
    _ask(args, "reset", args.device)
    return Exit.DONE


def _feed(args: argparse.Namespace) -> int:
    if not _ask(args, "feed", args.bus, args.text):
        raise AgentError(f"nobody has serial port {args.bus} open: the bytes are lost, as on a real one")
    return Exit.DONE


def _sent(args: argparse.Namespace) -> int:
    data: bytes = _ask(args, "sent", args.bus)
    if args.json:
        print_json({"bus": args.bus, "bytes": data.decode("latin-1")})
    else:
        print(escaped(data))
    return Exit.DONE


def _fault(args: argparse.Namespace) -> int:
    _ask(args, "fault", args.bus, args.kind, args.for_s, args.device)
    return Exit.DONE


def _heal(args: argparse.Namespace) -> int:
    _ask(args, "heal", args.bus)
    return Exit.DONE
