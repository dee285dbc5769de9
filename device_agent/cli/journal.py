"""`journal`: every actuation: who, what, when, result; `--verify` follows its chain of hashes.

Through the running daemon, else from its file.
"""

import argparse
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from device_agent.cli.common import Exit, Unavailable, config_path, print_json, print_table, styled
from device_agent.cli.running_daemon import ask_daemon
from device_agent.config.reader import load_state
from device_agent.errors import StoreError
from device_agent.store.journal import hash_chain

LIMIT_MAX = 10_000


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    journal = subparsers.add_parser("journal", help="every actuation: who, what, when, result")
    journal.add_argument("--verify", action="store_true", help="check that no row was changed or removed")
    journal.add_argument("--limit", type=_limit, default=100, metavar="N", help="the newest N rows (100)")
    journal.add_argument("--json", action="store_true", help="print JSON")
    journal.set_defaults(run=run_journal)


def _limit(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= LIMIT_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {LIMIT_MAX}")
    return int(text)


def run_journal(args: argparse.Namespace) -> int:
    file = config_path(args)
    if args.verify:
        return _show_verdict(_answer(file, {"op": "verify"}), as_json=args.json)
    rows = _answer(file, {"op": "journal", "limit": args.limit})
    if args.json:
        print_json(rows)
    elif not rows:
        print("nothing was driven yet")
    else:
        print_table(["when", "who", "device", "what", "result", "rule"], [_row(row) for row in rows])
    return Exit.DONE


def _answer(file: Path, question: Mapping[str, Any]) -> Any:
    try:
        return ask_daemon(file, question)
    except Unavailable:
        path = load_state(file).directory / "journal.db"
        try:
            return (
                hash_chain.verify(path)
                if question["op"] == "verify"
                else hash_chain.newest(path, question["limit"])
            )
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"the Journal {path} cannot be read ({error})") from error


def _show_verdict(verdict: Mapping[str, Any], *, as_json: bool) -> int:
    if as_json:
        print_json(verdict)
    elif verdict["ok"]:
        print(f"{styled('whole', 'green')}: {verdict['rows']} rows up to number {verdict['last']}")
        print(f"head: {verdict['head']}")
    if verdict["ok"]:
        return Exit.DONE
    fault = verdict["fault"]
    raise StoreError(
        f"the Journal was changed by other hands: row {fault['n']} {fault['why']}; keep a copy of its file"
    )


def _row(row: Mapping[str, Any]) -> list[str]:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row["at_ms"] / 1000))
    return [when, *(str(row[name]) for name in ("who", "device", "what", "result", "rule"))]
