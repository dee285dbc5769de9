"""`may-update`: whether the daemon may be restarted now, for the hook of any updater."""

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from device_agent.cli.common import Exit, Unavailable, config_path, said, span_s
from device_agent.cli.running_daemon import ask_daemon

LOOK_S = 1.0


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "may-update",
        help="whether the daemon may be restarted now",
        description="A restart makes all safe. Exit code 0: nothing is driven; 75: something is.",
    )
    parser.add_argument("--wait", metavar="TIME", type=span_s, default=0.0, help="for a safe moment (90, 5m)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run_may_update)


def run_may_update(args: argparse.Namespace) -> int:
    file, ends_s = config_path(args), time.monotonic() + args.wait
    while (why := _driven(file)) and time.monotonic() < ends_s:
        time.sleep(LOOK_S)
    said(
        args, {"may": not why, "why": why}, f"not now: {'; '.join(why)}" if why else "yes: nothing is driven"
    )
    return Exit.RESTART if why else Exit.DONE


def _driven(file: Path) -> list[str]:
    """A sentence for each actuator that is not at its safe value; none where no daemon runs."""
    try:
        status = ask_daemon(file, {"op": "status"})
    except Unavailable:
        return []
    return [_sentence(device) for device in status["devices"] if device.get("at_safe") is False]


def _sentence(device: Mapping[str, Any]) -> str:
    by = f" by {device['driven_by']}" if "driven_by" in device else ""
    until = f", for {device['safe_in_s']} s at most" if "safe_in_s" in device else ""
    return f"{device['device']} is driven{by}{until}"
