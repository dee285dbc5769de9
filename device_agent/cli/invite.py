"""`invite`, `dashboard`: who else may call a private agent, and its page."""

import argparse
import re
from typing import TYPE_CHECKING

from device_agent.account.credentials import key_and_source
from device_agent.cli.common import Exit, network_of, print_json, said, with_account
from device_agent.config import NetworkConfig
from device_agent.errors import AgentError, ConfigError

if TYPE_CHECKING:
    from device_agent.account.service import Account


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    invite = subparsers.add_parser("invite", help="invite a person or an organisation to a private agent")
    whom = invite.add_mutually_exclusive_group(required=True)
    whom.add_argument("--email", metavar="ADDRESS", type=_email, help="a person")
    whom.add_argument("--org", metavar="SLUG", type=_slug, help="an organisation, by its short name")
    whom.add_argument("--link", action="store_true", help="nobody by name: a link to pass on")
    whom.add_argument("--list", action="store_true", help="who is invited, and who has accepted")
    whom.add_argument("--revoke", metavar="GRANT", type=_slug, help="take access back, by the id of --list")
    invite.add_argument("--agent", metavar="NAME", help="else the configuration's")
    invite.set_defaults(run=run_invite)
    dashboard = subparsers.add_parser("dashboard", help="the address of the agent's page")
    dashboard.add_argument("agent", metavar="NAME", nargs="?", help="else the configuration's")
    dashboard.set_defaults(run=run_dashboard)
    for parser in (invite, dashboard):
        parser.add_argument("--json", action="store_true", help="print JSON")


def _email(text: str) -> str:
    if re.fullmatch(r"[^@\s]{1,200}@[^@\s]{1,200}", text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no e-mail address")
    return text


def _slug(text: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}", text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no short name of an organisation")
    return text


def _name(args: argparse.Namespace) -> tuple[str, NetworkConfig]:
    config, network = network_of(args)
    if args.agent is None and config is None:
        raise ConfigError("there is no configuration to take the agent's name from: name it")
    name = args.agent or (config.agent.name if config is not None else "")
    if re.fullmatch(r"[a-zA-Z0-9_]+", name) is None:
        raise AgentError(f"{name!r} is no name of an agent: letters, digits and _ only")
    return name, network


def run_invite(args: argparse.Namespace) -> int:
    name, network = _name(args)
    key, _, _ = key_and_source(network)
    if args.list or args.revoke:
        return _access(args, name, network, key)
    # That an empty body asks for a link alone is not stated by the public documents: unverified.
    whom = {} if args.link else {"email": args.email} if args.email else {"targetOrgSlug": args.org}

    answer = with_account(network, key, lambda service: service.invite(name, whom))
    if args.json:
        print_json({"agent": name, **whom, **answer})
        return Exit.DONE
    # No mail was sent: then the link is the invitation.
    mailed = "" if answer.get("notified") == 0 else "; the network tells them"
    if args.link and "inviteUrl" not in answer:
        raise AgentError(f"the network made no link for {name}: invite by --email or --org")
    if not args.link:
        print(f"{args.email or args.org} is invited to {name}{mailed}")
    if "inviteUrl" in answer:
        print(f"the link to pass on: {answer['inviteUrl']}")
    return Exit.DONE


def _access(args: argparse.Namespace, name: str, network: NetworkConfig, key: str) -> int:
    """`--list` and `--revoke`."""
    if args.revoke:
        with_account(network, key, lambda service: service.revoke(name, args.revoke))
        return said(args, {"agent": name, "revoked": args.revoke}, f"{args.revoke} may no longer call {name}")
    access = with_account(network, key, lambda service: service.access(name))
    if args.json:
        print_json({"agent": name, **access})
    else:
        for one in access["grants"]:
            print(f"may call  {one['id']}  {one['who']}  since {one['since']}")
        for one in access["invitations"]:
            print(f"invited   {one['id']}  {one['who']}  until {one['until']}")
        if not access["grants"] and not access["invitations"]:
            print(f"nobody is invited to {name}")
    return Exit.DONE


def run_dashboard(args: argparse.Namespace) -> int:
    name, network = _name(args)

    async def page(service: "Account") -> str:
        return service.page(name)

    url = with_account(network, "", page)
    return said(args, {"agent": name, "url": url}, url)
