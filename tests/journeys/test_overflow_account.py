"""After an overflow with live data going out between, the caller's account closes to the last number."""

from pathlib import Path
from typing import Any

import pytest

from device_agent.testing.network import NetworkThread
from support.callers import Listening, pipe, stream
from support.deployment import CONFIG, World
from support.outages import accept, refuse
from support.outbox_account import account
from support.waiting import LIMIT_S, until


@pytest.mark.parametrize("rule", ["drop-oldest", "thin"])
def test_gaps_name_exactly_what_does_not_come(
    net: NetworkThread, tmp_path: Path, alice: Any, rule: str
) -> None:
    name = f"islands-{tmp_path.name}"
    net.run(net.net.open_link(name))
    small = CONFIG.replace(
        "[safety]", '[outbox]\nmax_bytes = "256 kB"\ncommit_interval_s = 0.05\n[safety]', 1
    ).replace("[streams.control]", f'[streams.control]\noverflow = "{rule}"', 1)
    assert rule in small
    with World(tmp_path, net, link=name, config=small) as world:
        world.link = name  # type: ignore[attr-defined]
        world.start()
        session = pipe(alice, {"streams": ["control"], "every_s": 0.02}, duration=30)
        listening = stream(session, "control")
        listening.wait("reading", device="climate")
        for dropped in (50, 400):
            refuse(world)
            until(
                lambda least=dropped: world.daemon.ask("status")["outbox"]["dropped"] > least, "a loss", 120
            )
            accept(world)
            until(lambda: listening.of("gap"), "a gap", 60)
        assert until(lambda: _closes(listening), "the account closes", 120) > 50
        session.terminate()
        session.wait_for_terminal(LIMIT_S)


def _closes(heard: Listening) -> int:
    """How many numbers gaps name, once the account closes; events that are on their way are awaited."""
    seen = list(heard.events)
    try:
        return account(seen, first=min(event["seq"] for event in seen))
    except AssertionError as error:
        if "neither came nor" in str(error):
            return 0
        raise
