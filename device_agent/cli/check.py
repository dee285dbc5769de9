"""`device-agent check`: validate the configuration without touching hardware."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_agent.cli.common import Exit, config_path, print_error, print_json, styled
from device_agent.errors import ConfigError

if TYPE_CHECKING:
    from device_agent.config import Config


def register(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "check",
        help="validate the configuration without touching hardware",
        description="Validate the configuration without touching hardware. Shows every error at once, each "
        "with place, value and remedy. Exit code 0: right (warnings may remain); 78: a person must edit it.",
    )
    parser.add_argument("file", metavar="FILE", nargs="?", help="instead of --config")
    parser.add_argument("--json", action="store_true", help="errors and warnings as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from device_agent.config import load
    from device_agent.store.state_directory import complaints, not_mounted

    path = Path(args.file) if args.file else config_path(args)
    try:
        config = load(path)
    except ConfigError as error:
        if args.json:
            print_json({"path": str(path), "valid": False, "errors": list(error.problems), "warnings": []})
        else:
            print_error(error)
        return Exit.CONFIG
    state = config.state.directory
    warnings = [*config.warnings, *_keys(config), *complaints(state), *filter(None, [not_mounted(state)])]
    if args.json:
        print_json({"path": str(path), "valid": True, "errors": [], "warnings": warnings})
        return Exit.DONE
    for warning in warnings:
        print(f"{styled('warning', 'yellow', 'bold')}: {warning}")
    parts = (("device", config.devices), ("bus", config.buses), ("stream", config.streams))
    counts = ", ".join(_count(word, len(tables)) for word, tables in parts)
    print(f"{path} is {styled('right', 'green')}: agent {config.agent.name} with {counts}")
    return Exit.DONE


def _keys(config: "Config") -> list[str]:
    """What is missing here; a service may have it from its systemd credential."""
    from device_agent.config.secret import sessions_key

    if config.delegations:
        try:
            sessions_key(config.delegation)
        except ConfigError as error:
            return [str(error)]
    return []


def _count(word: str, number: int) -> str:
    plural = "buses" if word == "bus" else f"{word}s"
    return f"{number} {word if number == 1 else plural}"
