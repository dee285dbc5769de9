"""The command line: `main` finds the command's module by name and imports no other.

A new command is one module in this package and one line in `COMMANDS`. The module has `register(subparsers)`,
which adds its parser with `set_defaults(run=callable(args) -> int)`. What several commands need is in
`common` (exit codes, arguments, tables), `show` (values and events as text), `running_daemon` (its control
socket) and `live` (a screen that is redrawn).
"""

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from device_agent import schema

DESCRIPTION = "Makes the sensors and actuators of this board an agent on the Blocks Network."


class Verb(NamedTuple):
    """The module of a command below `device_agent.cli`, and its line in `--help`."""

    module: str
    help: str


COMMANDS = {
    "run": Verb("run", "the daemon"),
    "demo": Verb("demo", "see it work: no configuration, no hardware, no network"),
    "init": Verb("init", "make a configuration, led through it"),
    "scan": Verb("scan", "find buses, chips and ports"),
    "doctor": Verb("doctor", "what is missing on this machine, and the remedy"),
    "check": Verb("check", "validate the configuration without touching hardware"),
    "card": Verb("card", "print the agent card that would be published"),
    "drivers": Verb("drivers", "installed drivers: options, points, units"),
    "read": Verb("control", "the present reading of devices, or of all"),
    "set": Verb("control", "set a point of a device"),
    "do": Verb("control", "carry out an action of a device"),
    "status": Verb("status", "link, sessions, devices, outbox, safe states"),
    "monitor": Verb("monitor", "status that lives"),
    "history": Verb("history", "readings from the local record: table, CSV, or a picture"),
    "safe": Verb("control", "put every actuator in its safe state"),
    "estop": Verb("control", "emergency stop: everything safe until it is released"),
    "release": Verb("control", "end the emergency stop"),
    "journal": Verb("journal", "every actuation: who, what, when, result"),
    "mcp": Verb("mcp", "tools for a local AI assistant"),
    "call": Verb("call", "call an agent: read, watch, drive, history"),
    "login": Verb("login", "store the API key with which you publish"),
    "logout": Verb("login", "forget the stored API key"),
    "whoami": Verb("login", "whose API key is in use"),
    "publish": Verb("publish", "publish the agent card"),
    "unpublish": Verb("publish", "delete the agent from the registry, for good"),
    "invite": Verb("invite", "invite a person or an organisation to a private agent"),
    "dashboard": Verb("invite", "the address of the agent's page"),
    "board": Verb("board", "the simulated board"),
    "dev-network": Verb("dev_network", "a local stand-in of the network, for development"),
    "service": Verb("service", "install, remove or look at the service of this machine"),
    "config": Verb("config", "every table and key of the configuration"),
    "completion": Verb("completion", "what a shell completes"),
    "man": Verb("completion", "the manual page"),
    "may-update": Verb("may_update", "whether the daemon may be restarted now, for an updater"),
    "version": Verb("version", "print the version"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (`common.Exit`). `argv` is without the program's name."""
    from device_agent.cli.common import open_streams, run_command

    open_streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    if argv is None and _wanted(arguments) == "run":
        schema.hold_only()
        _leave_out_archives()
    return run_command(lambda: _dispatch(arguments), as_json=_as_json(arguments))


def _leave_out_archives() -> None:
    """`shutil` would load two libraries for archives that a daemon never opens: 0.25 MB."""
    absent: dict[str, Any] = {"bz2": None, "lzma": None}  # that is how an import is refused
    sys.modules.update(absent)
    importlib.import_module("shutil")
    for name in absent:
        del sys.modules[name]


def parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The parser for these arguments: complete for the command they name, one line of help for all others."""
    wanted = _wanted(arguments)
    return _parser({COMMANDS[wanted].module} if wanted in COMMANDS else set())


def whole_parser() -> argparse.ArgumentParser:
    """The parser with every command in full, for completion and manual."""
    return _parser({command.module for command in COMMANDS.values()})


def _parser(loaded: set[str]) -> argparse.ArgumentParser:
    from device_agent.cli.common import Parser, add_config_option

    root = Parser(prog="device-agent", description=DESCRIPTION, allow_abbrev=False)
    root.set_defaults(run=None, config=None)
    add_config_option(root)
    root.add_argument("--version", action="store_true", help="print the version")
    subparsers = root.add_subparsers(metavar="COMMAND", dest="command")
    for name, command in COMMANDS.items():
        if name in subparsers.choices or not _installed(command.module):
            continue
        if command.module not in loaded:
            subparsers.add_parser(name, help=command.help)
            continue
        importlib.import_module(f"device_agent.cli.{command.module}").register(subparsers)
    for subparser in {id(one): one for one in subparsers.choices.values()}.values():
        add_config_option(subparser)
    return root


def _dispatch(arguments: list[str]) -> int:
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:], "--help"]
    root = parser(arguments)
    wanted = _wanted(arguments)
    if wanted and wanted not in COMMANDS:
        import difflib

        guess = difflib.get_close_matches(wanted, COMMANDS, n=1)
        root.error(
            f'there is no command "{wanted}": ' + (f'did you mean "{guess[0]}"?' if guess else "see --help")
        )
    args = root.parse_args(arguments)
    if args.version and args.run is None:
        from device_agent.cli.version import print_version

        return print_version(args)
    if args.run is None:
        root.print_help(sys.stderr)
        return 2
    del root  # the daemon needs no parsers of thirty commands
    return int(args.run(args))


def _wanted(arguments: Sequence[str]) -> str:
    """The command among the arguments: the first that is neither an option nor the value of `--config`."""
    skip = False
    for word in arguments:
        if skip:
            skip = False
        elif word == "--config":
            skip = True
        elif not word.startswith("-"):
            return word
    return ""


def _as_json(arguments: Sequence[str]) -> bool:
    """Whether what goes wrong is to be read by a program, too: `--json`, `--log json`."""
    return bool({"--json", "--log=json"} & {*arguments}) or ("--log", "json") in pairwise(arguments)


def _installed(module: str) -> bool:
    return importlib.util.find_spec(f"device_agent.cli.{module}") is not None
