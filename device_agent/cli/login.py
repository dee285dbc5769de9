"""`login`, `logout`, `whoami`: the API key of the person who publishes.

The daemon does not use it: its key is a systemd credential, $BLOCKS_API_KEY or network.api_key_file.
"""

import argparse
import getpass
import sys
from pathlib import Path
from typing import Any

from device_agent.account.credentials import Credentials, credentials_path, is_key, key_and_source, save
from device_agent.cli.common import Exit, network_of, print_json, said, with_account
from device_agent.config import NetworkConfig
from device_agent.errors import AgentError, ConfigError, Rejected

_LINE_MAX = 4096


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    login = subparsers.add_parser(
        "login", help="store the API key with which you publish", description=__doc__
    )
    way = login.add_mutually_exclusive_group()
    way.add_argument(
        "--api-key-stdin", action="store_true", help="the key is the first line of standard input"
    )
    way.add_argument("--api-key-file", metavar="FILE", type=Path, help="the key is the first line of a file")
    login.add_argument("--no-check", action="store_true", help="store it without asking the network")
    login.set_defaults(run=run_login)
    logout = subparsers.add_parser("logout", help="forget the stored API key")
    logout.set_defaults(run=run_logout)
    whoami = subparsers.add_parser("whoami", help="whose API key is in use")
    whoami.set_defaults(run=run_whoami)
    for parser in (login, logout, whoami):
        parser.add_argument("--json", action="store_true", help="print JSON")


def run_login(args: argparse.Namespace) -> int:
    _, network = network_of(args)
    key = _key(args)
    if not is_key(key):
        raise ConfigError("this is no API key: one word of printable characters is expected, such as bk_…")
    context = {} if args.no_check else _context(network, key)
    login = Credentials(key, str(context.get("orgId", "")), str(context.get("orgName", "")))
    path = credentials_path()
    try:
        save(path, login)
    except OSError as error:
        raise AgentError(
            f"{path} cannot be written ({error.strerror}): set $XDG_CONFIG_HOME to a folder of yours"
        ) from error
    whose = f" of {login.org_name or login.org_id}" if context else ", not checked"
    sentence = f"logged in with key {masked(key)}{whose}; stored in {path}"
    return said(args, {"file": str(path), "checked": bool(context), **context}, sentence)


def _key(args: argparse.Namespace) -> str:
    if args.api_key_file is not None:
        try:
            with args.api_key_file.open(encoding="ascii", errors="replace") as file:
                return str(file.readline(_LINE_MAX)).strip()
        except OSError as error:
            raise AgentError(f"{args.api_key_file} cannot be read ({error.strerror})") from error
    if args.api_key_stdin or not sys.stdin.isatty():
        return sys.stdin.readline(_LINE_MAX).strip()
    print("Make an API key on the network's dashboard. It is not shown while you paste it.", file=sys.stderr)
    return getpass.getpass("API key: ").strip()


def _context(network: NetworkConfig, key: str) -> dict[str, str | int]:
    """Whose key it is. Only a key that is refused is not stored; a service that cannot say is no reason."""
    try:
        return with_account(network, key, lambda service: service.context())
    except Rejected:
        raise Rejected("not_allowed", "the network refuses this API key; nothing was stored") from None
    except AgentError as error:
        print(f"the key could not be checked: {error}", file=sys.stderr)
        return {}


def run_logout(args: argparse.Namespace) -> int:
    path = credentials_path()
    try:
        path.unlink()
        found = True
    except FileNotFoundError:
        found = False
    except OSError as error:
        raise AgentError(f"{path} cannot be removed ({error.strerror})") from error
    text = f"{path} removed; the key itself is valid until you revoke it on the dashboard"
    return said(args, {"file": str(path), "removed": found}, text if found else "nobody was logged in")


def run_whoami(args: argparse.Namespace) -> int:
    _, network = network_of(args)
    key, source, login = key_and_source(network)

    context = with_account(network, key, lambda service: service.context())
    account: dict[str, Any] = {"key": masked(key), "source": source, **context}
    if login is not None and login.expires_at:
        account["expiresAt"] = login.expires_at
    if args.json:
        print_json(account)
        return Exit.DONE
    names = {"orgName": "organisation", "orgId": "its id", "agentCount": "agents", "key": "key"}
    names |= {"source": "key from", "expiresAt": "valid until"}
    for name, title in names.items():
        if name in account:
            print(f"{title:<13}{account[name]}")
    return Exit.DONE


def masked(key: str) -> str:
    """Enough of a key to recognise it."""
    return f"{key[:3]}…{key[-4:]}" if len(key) >= 16 else f"{key[:3]}…"
