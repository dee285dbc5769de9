"""`service install|uninstall|status`: the program as a service of this machine."""

import argparse
import getpass
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from device_agent.cli.common import Exit, add_config_option, config_path, print_json
from device_agent.config import Config, load
from device_agent.config.models import NetworkConfig
from device_agent.config.secret import api_key
from device_agent.errors import AgentError, Rejected
from device_agent.operate.service_install import KEY, Service


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("service", help="the service of this machine", description=__doc__)
    parser.set_defaults(run=lambda args: run_status(argparse.Namespace(**vars(args), json=False)))
    verbs = parser.add_subparsers(metavar="VERB")
    install = verbs.add_parser(
        "install",
        help="put it in place, or up to date; with sudo",
        description="Program, units, user, groups, rules, configuration, key. Run it again after a change.",
    )
    install.add_argument("--key-file", metavar="FILE", type=Path, help="file with the API key of the device")
    install.set_defaults(run=run_install)
    uninstall = verbs.add_parser("uninstall", help="take it away; configuration and state stay; with sudo")
    uninstall.add_argument("--purge", action="store_true", help="configuration, key and state too")
    uninstall.set_defaults(run=run_uninstall)
    status = verbs.add_parser("status", help="what runs, and what is left to do")
    status.add_argument("--json", action="store_true", help="print JSON")
    status.set_defaults(run=run_status)
    for verb in (install, uninstall, status):
        add_config_option(verb)


def run_install(args: argparse.Namespace, service: Service | None = None) -> int:
    service = service or _as_root()
    config = _config(args)
    caller = os.environ.get("SUDO_USER", "")
    _say(service.install(config, _key(args, service, config), "" if caller == "root" else caller))
    left = list(service.left(config))
    _say(f"left to do: {step}" for step in left)
    return Exit.DONE


def run_uninstall(args: argparse.Namespace, service: Service | None = None) -> int:
    _say((service or _as_root()).uninstall(purge=args.purge))
    return Exit.DONE


def run_status(args: argparse.Namespace, service: Service | None = None) -> int:
    service = service or Service()
    state, left = service.state(), list(service.left(_config(args)))
    if args.json:
        print_json({"units": state, "left": left})
    else:
        _say(f"{unit:<28}{text}" for unit, text in state.items())
        _say(f"left to do: {step}" for step in left)
    return Exit.DONE if all(text.startswith("active") for text in state.values()) else Exit.FAILED


def _as_root() -> Service:
    if os.geteuid() != 0:
        raise Rejected("not_allowed", "this changes the system: run it with sudo")
    return Service()


def _say(sentences: Iterable[str]) -> None:
    for sentence in sentences:
        print(sentence, flush=True)


def _config(args: argparse.Namespace) -> Config | None:
    path = config_path(args)
    return load(path) if path.exists() or getattr(args, "config", None) else None


def _key(args: argparse.Namespace, service: Service, config: Config | None) -> str:
    """From the file; else asked for, where somebody is there and none was given yet. Empty: later."""
    if args.key_file is not None:
        return api_key(NetworkConfig(api_key_file=args.key_file.absolute()), environ={})
    needed = config is None or config.network.kind != "none"
    if not needed or service.path(KEY).exists() or not sys.stdin.isatty():
        return ""
    key = getpass.getpass("API key of the device (not shown; empty: later): ").strip()
    if key and not key.isascii():
        raise AgentError("this is no API key: one word of printable characters is expected")
    return key
