"""`publish`, `unpublish`: the agent card in the network's registry."""

import argparse
import asyncio
from decimal import Decimal, InvalidOperation
from typing import Any

from device_agent.account import publication
from device_agent.account.credentials import key_and_source
from device_agent.account.publication import Terms
from device_agent.cli.common import UsageError, config_path, confirm, said, styled, with_account
from device_agent.config import Config, load
from device_agent.errors import AgentError

CHANGES_SHOWN = 30


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    publish = subparsers.add_parser(
        "publish", help="publish the agent card", description="Publish the agent card, or its new version."
    )
    add = publish.add_argument
    add("--listing", choices=("private", "public"), help="who may find it (else network.listing)")
    add("--billing-mode", choices=("free", "paid"), help="else network.billing_mode")
    add("--price", metavar="USD", type=_money, help="per task or per minute, by the agent's one kind of task")
    add("--price-per-task", metavar="USD", type=_money, help="0.0001 to 25.00")
    add("--price-per-minute", metavar="USD", type=_money, help="0.01 to 1.00")
    add("--free-units", metavar="N", type=_count, help="free tasks or minutes, by the one kind of task")
    add("--free-tasks", metavar="N", type=_count, help="free tasks of each caller's organisation, to 100")
    add("--free-minutes", metavar="N", type=_count, help="free minutes of each caller's organisation, to 30")
    add("--accept-terms", action="store_true", help="accept the network's terms for paid providers")
    add("--dry-run", action="store_true", help="show what would be published, and end")
    publish.set_defaults(run=run_publish)
    unpublish = subparsers.add_parser("unpublish", help="delete the agent from the registry, for good")
    unpublish.add_argument("agent", metavar="AGENT", nargs="?", help="else the configuration's")
    unpublish.set_defaults(run=run_unpublish)
    for parser in (publish, unpublish):
        parser.add_argument("--yes", "-y", action="store_true", help="do not ask")
        parser.add_argument("--json", action="store_true", help="print JSON")


def _money(text: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal(-1)
    if not value.is_finite() or value <= 0 or len(text) > 20:
        raise argparse.ArgumentTypeError(f"{text!r} is no price in US dollars such as 0.10")
    return value


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 7):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of free units such as 10")
    return int(text)


# -- publish ------------------------------------------------------------------------------------------------


def run_publish(args: argparse.Namespace) -> int:
    from device_agent.card import agent_card

    config = load(config_path(args))
    made = agent_card.build(config)
    if wrong := agent_card.validate(made):
        raise AgentError(f"the card breaks the network's rules: {wrong[0]}; please report it")
    terms = _terms(args, config)
    key, source, _ = key_and_source(config.network)
    return asyncio.run(_publish(args, config, made, terms, key, source))


def _terms(args: argparse.Namespace, config: Config) -> Terms:
    kinds = config.agent.task_kinds
    task, minute = publication.by_kind(args.price, kinds, "--price")
    tasks, minutes = publication.by_kind(args.free_units, kinds, "--free-units")
    return Terms(
        args.listing or config.network.listing,
        args.billing_mode or config.network.billing_mode,
        _first(args.price_per_task, task),
        _first(args.price_per_minute, minute),
        _first(args.free_tasks, tasks),
        _first(args.free_minutes, minutes),
        accepted=args.accept_terms,
    )


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


async def _publish(
    args: argparse.Namespace, config: Config, made: dict[str, Any], terms: Terms, key: str, source: str
) -> int:
    from device_agent.account.service import account

    async with account(config.network, key) as service:
        if wrong := publication.faults(terms, config.agent.task_kinds, await service.limits()):
            raise UsageError(*wrong)
        there = await service.agent(config.agent.name)
        changes = _changes(there, made, terms)
        if not args.json:
            _show(config, made, terms, there, changes, source)
        done: dict[str, Any] = {"agent": config.agent.name, "new": there is None, "changes": changes}
        # The network does not tell the present price, so one that is configured is always sent.
        if args.dry_run or (not changes and terms.billing_mode == "free"):
            return said(args, {**done, "published": False}, "" if args.dry_run else "nothing to publish")
        confirm(f"Publish {config.agent.name}?", yes=args.yes)
        url = await service.publish(publication.body(made, terms))
        return said(args, {**done, "published": True, "url": url}, f"published: {url}")


def _changes(there: dict[str, Any] | None, made: dict[str, Any], terms: Terms) -> list[str]:
    from device_agent.card.compare import differences

    if there is None:
        return ["+ the agent"]
    changes = []
    for name, wanted in (("listing", terms.listing), ("billingMode", terms.billing_mode)):
        if there.get(name) != wanted:
            changes.append(f"~ {name}: {there.get(name)} → {wanted}")
    published = there.get("card")
    return changes + (differences(published, made) if isinstance(published, dict) else ["+ the card"])


def _show(
    config: Config,
    made: dict[str, Any],
    terms: Terms,
    there: dict[str, Any] | None,
    changes: list[str],
    source: str,
) -> None:
    identity = made["identity"]
    print(f"{styled(identity['displayName'], 'bold')}  ({config.agent.name} {identity['version']})")
    print(identity["description"])
    print(f"tasks      {', '.join(config.agent.task_kinds)}")
    print(f"streams    {', '.join(config.streams) or 'none'}")
    print(f"listing    {terms.listing}")
    print(f"billing    {terms.billing_mode}{_prices(terms)}")
    print(f"key from   {source}")
    print(styled("new agent" if there is None else f"{len(changes)} changes", "bold"))
    colours = {"+": "green", "-": "red", "~": "yellow"}
    for change in changes[:CHANGES_SHOWN] if there is not None else ():
        print(styled(f"  {change}", colours[change[0]]))
    if len(changes) > CHANGES_SHOWN:
        print(f"  and {len(changes) - CHANGES_SHOWN} more")


def _prices(terms: Terms) -> str:
    parts = []
    if terms.price_per_task is not None:
        parts.append(f"${terms.price_per_task} a task")
    if terms.price_per_minute is not None:
        parts.append(f"${terms.price_per_minute} a minute")
    if terms.free_tasks:
        parts.append(f"{terms.free_tasks} tasks free")
    if terms.free_minutes:
        parts.append(f"{terms.free_minutes} minutes free")
    return f": {', '.join(parts)}" if parts else ""


# -- unpublish ----------------------------------------------------------------------------------------------


def run_unpublish(args: argparse.Namespace) -> int:
    config = load(config_path(args))
    name = args.agent or config.agent.name
    key, _, _ = key_and_source(config.network)
    question = f"Delete {name} from the registry, with its invitations and its place in what it is called by?"
    confirm(question, yes=args.yes)

    with_account(config.network, key, lambda service: service.unpublish(name))
    return said(args, {"agent": name, "deleted": True}, f"{name} is deleted from the registry")
