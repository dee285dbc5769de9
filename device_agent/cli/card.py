"""`device-agent card`: the agent card that would be published."""

import argparse
import json
from pathlib import Path
from typing import Any

from device_agent.cli.common import Exit, config_path
from device_agent.errors import AgentError


def register(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "card",
        help="print the agent card that would be published",
        description="Print the agent card, made from the configuration and its drivers, as JSON.",
    )
    parser.add_argument("--out", metavar="FILE", type=Path, help="write it to a file instead")
    parser.add_argument("--json", action="store_true", help="as JSON, which a card is in any case")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from device_agent.card import agent_card
    from device_agent.config import load

    path = config_path(args)
    made = agent_card.build(load(path))
    if faults := agent_card.validate(made):
        raise AgentError(f"the card of {path} breaks the network's rules: {faults[0]}; please report it")
    text = json.dumps(made, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if args.out is None:
        print(text, end="")
        return Exit.DONE
    try:
        args.out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise AgentError(
            f"the card cannot be written to {args.out} ({error.strerror}): choose another file"
        ) from error
    print(f"card of {made['identity']['agentName']} written to {args.out}")
    return Exit.DONE
