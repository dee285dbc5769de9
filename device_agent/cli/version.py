"""`device-agent version`."""

import argparse
from typing import Any

from device_agent import __version__


def register(subparsers: Any) -> None:
    parser = subparsers.add_parser("version", help="print the version")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=print_version)


def print_version(args: argparse.Namespace) -> int:
    if getattr(args, "json", False):
        print(f'{{"version": "{__version__}"}}')
    else:
        print(f"device-agent {__version__}")
    return 0
