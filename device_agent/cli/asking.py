"""Questions to a person, which a script answers beforehand."""

import argparse
import sys
from pathlib import Path

from device_agent.cli.common import Exit, config_path, styled
from device_agent.config import Config, NetworkConfig, load


def refused(question: str, *, yes: bool) -> Exit | None:
    """None to go on; else the exit code: the person said no, or nobody is there to ask."""
    if yes:
        return None
    if not sys.stdin.isatty():
        print(
            f"{styled('error', 'red', 'bold', stream=sys.stderr)}: nobody is there to ask: add --yes",
            file=sys.stderr,
        )
        return Exit.USAGE
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return None
    print("nothing was done", file=sys.stderr)
    return Exit.FAILED


def network_of(args: argparse.Namespace) -> tuple[Config | None, NetworkConfig]:
    """The configuration if there is one, and where the network is: these commands also run on a laptop."""
    path: Path = config_path(args)
    named = getattr(args, "config", None) is not None
    if not named and not path.exists():
        return None, NetworkConfig()
    config = load(path)
    return config, config.network
