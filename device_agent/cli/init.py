"""`device-agent init`: makes a configuration from questions, or from options and what `scan` finds."""

import argparse
import os
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from device_agent.account.credentials import key_and_source
from device_agent.cli.common import (
    CONFIG_VARIABLE,
    Exit,
    UsageError,
    config_path,
    print_json,
    styled,
    with_account,
)
from device_agent.cli.scan import find, host_name, lines, state_directory, write
from device_agent.config import load
from device_agent.config.models import AgentConfig, NetworkConfig
from device_agent.discovery.compose import Answers, Proposal, compose, proposals
from device_agent.discovery.results import ScanResult
from device_agent.errors import AgentError

CALLER = re.compile(r"(anyone|(org|user):[^\s:]\S*)")
TAG = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
NAME = re.compile(r"[A-Za-z0-9_]{1,52}")
LINE = re.compile(r"\d{1,3}")
CALLERS = "me, anyone, org:ID, user:ID"


def register(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "init",
        help="make a configuration, led through it",
        description="Make a configuration from what is found here and from your answers. Options answer "
        "beforehand; --yes takes them, and sensible defaults, without asking.",
    )
    add = parser.add_argument
    add("--out", metavar="FILE", help="the file to write (else --config or its variable, else agent.toml)")
    add("--yes", "-y", action="store_true", help="do not ask")
    add("--force", action="store_true", help="overwrite the file")
    add("--name", type=_one(NAME, "a name of letters, digits and _"), help="the agent's name on the network")
    add("--display-name", metavar="TEXT", type=_short("display_name"), help="what people see")
    add("--description", metavar="TEXT", type=_short("description"), help="what it senses and does")
    add("--organization", metavar="TEXT", type=_short("organization"), help="who runs it")
    add("--tag", action="append", metavar="TAG", type=_one(TAG, "a tag"), help="may be repeated")
    add("--listing", choices=("private", "public"), help="who may find it (private)")
    add(
        "--read",
        action="append",
        metavar="WHO",
        type=_who,
        help=f"who may read: {CALLERS}; may be repeated (anyone)",
    )
    add("--drive", action="append", metavar="WHO", type=_who, help="who may drive; may be repeated (nobody)")
    add(
        "--relay",
        action="append",
        metavar="LINE",
        type=_line,
        help="a relay on this GPIO line; may be repeated",
    )
    add("--relays-high", action="store_true", help="the relays switch on at a high level")
    add("--button", action="append", metavar="LINE", type=_line, help="a contact to ground; may be repeated")
    add("--device", action="append", metavar="NAME", help="take only these of the found devices")
    add("--state", metavar="DIR", help="where the daemon keeps its state")
    add("--json", action="store_true", help="say what was written as JSON; asks nothing")
    parser.set_defaults(run=run)


def _who(text: str) -> str:
    """A caller; `me` stands for the organisation of whoever is logged in here."""
    if text != "me":
        return _one(CALLER, CALLERS)(text)
    try:
        key, _, _ = key_and_source(NetworkConfig())
        return f"org:{with_account(NetworkConfig(), key, lambda service: service.context())['orgId']}"
    except (AgentError, KeyError) as error:
        raise argparse.ArgumentTypeError(f"nobody is known as me: {error}; or write org:ID") from None


def _line(text: str) -> str:
    return str(int(_one(LINE, "the number of a GPIO line")(text)))


def _one(pattern: re.Pattern[str], what: str) -> Callable[[str], str]:
    def fits(text: str) -> str:
        if pattern.fullmatch(text) is None:
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
        return text

    return fits


def run(args: argparse.Namespace) -> int:
    path = _out(args)
    if path.exists() and not args.force:
        raise AgentError(f"{path} is there already: name another with --out, or add --force to overwrite it")
    asks = not args.yes and not args.json
    if asks and not sys.stdin.isatty():
        raise UsageError("nobody is there to ask: add --yes")
    found, drivers = find(args)
    devices = proposals(found, drivers)
    answers = _given(args, path, devices)
    if asks:
        answers = led(answers, found, devices)
    write(path, compose(found, drivers, answers), args.force)
    config = load(path)  # what it wrote passes its own checks, whatever was answered
    if args.json:
        print_json({"path": str(path), "devices": list(config.devices), "warnings": list(config.warnings)})
        return Exit.DONE
    _next(path, list(config.devices))
    return Exit.DONE


def _out(args: argparse.Namespace) -> Path:
    if args.out:
        return Path(args.out)
    named = config_path(args)
    given = getattr(args, "config", None)
    return named if given or os.environ.get(CONFIG_VARIABLE) else Path("agent.toml")


def _given(args: argparse.Namespace, path: Path, devices: list[Proposal]) -> Answers:
    """Options, and defaults for the rest. Raises AgentError for a device that was not found."""
    known = {one.name for one in devices}
    if unknown := [name for name in args.device or () if name not in known]:
        raise AgentError(
            f"--device {unknown[0]} was not found here: there are {', '.join(sorted(known)) or 'none'}"
        )
    lines = [*(args.relay or ()), *(args.button or ())]
    if twice := sorted({line for line in lines if lines.count(line) > 1}):
        raise UsageError(f"line {twice[0]} is named twice: each has one use")
    name = args.name or host_name()
    return Answers(
        name=name,
        display_name=args.display_name or _for_people(name),
        description=args.description or _described(devices),
        organization=args.organization or "",
        tags=tuple(dict.fromkeys(args.tag or ())),
        listing=args.listing or "private",
        read=tuple(args.read or ("anyone",)),
        drive=tuple(args.drive or ()),
        state_directory=str(Path(args.state).absolute()) if args.state else state_directory(path),
        only=tuple(args.device) if args.device else None,
        relays=tuple(args.relay or ()),
        relays_low=not args.relays_high,
        buttons=tuple(args.button or ()),
    )


def _for_people(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _described(devices: list[Proposal]) -> str:
    chips = ", ".join(dict.fromkeys(one.driver.upper() for one in devices if one.driver != "host"))
    return f"Readings of {chips}." if chips else "Readings of this board."


# -- questions --------------------------------------------------------------------------------------------


def led(answers: Answers, found: ScanResult, devices: list[Proposal]) -> Answers:
    """Every question with its default; Enter takes it."""
    for line in lines(found):
        print(line)
    print(f"\n{styled('Enter takes what stands in brackets.', 'dim')}")
    a_tag = _one(TAG, "lower-case letters, digits, . _ -")
    listed = _one(re.compile("private|public"), "private or public")
    name = _asked("Name on the network", answers.name, _one(NAME, "letters, digits and _"))
    given = answers.display_name != _for_people(answers.name)
    shown = answers.display_name if given else _for_people(name)
    answers = replace(
        answers,
        name=name,
        display_name=_asked("Name for people", shown, _short("display_name")),
        description=_asked("What it senses and does", answers.description, _short("description")),
        organization=_asked("Organisation", answers.organization, _short("organization")),
        tags=_several("Tags, separated by commas", answers.tags, a_tag),
        listing=_asked("Who may find it: private or public", answers.listing, listed),
        read=_several(f"Who may read: {CALLERS}", answers.read, _who),
        drive=_several("Who may drive; empty is nobody", answers.drive, _who),
        state_directory=_asked("Where its state is kept", answers.state_directory, _folder),
    )
    if found.gpio:
        answers = _wired(answers)
    if answers.only is not None:
        return answers
    taken = [one.name for one in devices if _asked(f"Take {one.name} ({one.what})?", "yes", _yes_no) == "yes"]
    return replace(answers, only=tuple(taken))


def _wired(answers: Answers) -> Answers:
    """What hangs on the header, which nobody can find by asking it."""
    relays = _several("Relays: numbers of their GPIO lines; empty is none", answers.relays, _line)
    low = "yes" if answers.relays_low else "no"
    if relays:
        low = _asked("Do they switch on at a low level, as most boards do?", low, _yes_no)

    def free(text: str) -> str:
        if (line := _line(text)) in relays:
            raise argparse.ArgumentTypeError(f"line {line} is a relay's")
        return line

    buttons = _several("Buttons and contacts to ground: their GPIO lines", answers.buttons, free)
    return replace(answers, relays=relays, relays_low=low == "yes", buttons=buttons)


def _asked(question: str, default: str, check: Callable[[str], str]) -> str:
    """Asked again until it is right; the end of the input ends the command."""
    while True:
        print(f"{styled(question, 'bold')} [{default}]: ", end="", flush=True)
        line = sys.stdin.readline()
        if not line:
            raise AgentError("the answers ended too early: nothing was written")
        try:
            return check(line.strip() or default)
        except argparse.ArgumentTypeError as error:
            print(f"  {error}")


def _several(question: str, default: tuple[str, ...], check: Callable[[str], str]) -> tuple[str, ...]:
    found: list[str] = []

    def each(text: str) -> str:
        found[:] = [check(word) for word in filter(None, re.split(r"[,\s]+", text))]
        return text

    _asked(question, ", ".join(default), each)
    return tuple(dict.fromkeys(found))


def _short(key: str) -> Callable[[str], str]:
    bounds = AgentConfig.model_fields[key].metadata
    limit = next(int(bound.max_length) for bound in bounds if hasattr(bound, "max_length"))

    def fits(text: str) -> str:
        if len(text) > limit:
            raise argparse.ArgumentTypeError(f"that has {len(text)} letters: at most {limit}")
        return text

    return fits


def _folder(text: str) -> str:
    if "\0" in text or not text.startswith("/"):
        raise argparse.ArgumentTypeError(f"{text!r} is no path that begins with /")
    return text


def _yes_no(text: str) -> str:
    words = {"y": "yes", "yes": "yes", "n": "no", "no": "no"}
    if text.lower() not in words:
        raise argparse.ArgumentTypeError("yes or no")
    return words[text.lower()]


def _next(path: Path, devices: list[str]) -> None:
    print(f"\n{styled('wrote', 'green')} {path}. Next:\n")
    print(f"  $EDITOR {path}                                # decide what waits behind a #")
    command = f"device-agent --config {path}"
    print(f"  {command} check")
    print(f"  {command} doctor")
    if devices:
        print(f"  {command} read {devices[0]}")
    print(f"  {command} publish --dry-run")
    print(f"  {command} run")
