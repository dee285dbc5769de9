"""A neighbour's flood crowds nobody out of the outbox: each stream has its share of it."""

from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from device_agent.testing.network import NetworkThread
from support.callers import pipe, stream
from support.deployment import CONFIG, World
from support.outages import accept, refuse
from support.waiting import until

FLOODED = 50


def fed(world: World) -> int:
    """More lines from the scale; how many events were dropped so far."""
    assert world.board is not None
    world.board.do("feed", "meter", "".join(f"W {n}\\n" for n in range(200)))
    return int(world.daemon.ask("status")["outbox"]["dropped"])


def door(world: World) -> Any:
    return world.daemon.ask("read", device="door").get("values", {}).get("active")


def test_what_must_be_kept_survives_a_flood_beside_it(net: NetworkThread, tmp_path: Path, alice: Any) -> None:
    name = f"crowded-{tmp_path.name}"
    net.run(net.net.open_link(name))
    config = CONFIG.replace("[safety]", '[outbox]\nmax_bytes = "256 kB"\n[safety]', 1).replace(
        "[streams.orders]",
        '[streams.kept]\ndirection = "outbound"\ndevices = ["door"]\noverflow = "refuse"\n[streams.orders]',
        1,
    )
    with World(tmp_path, net, link=name, config=config) as world:
        world.link = name  # type: ignore[attr-defined]
        world.start()
        board = world.board
        assert board is not None
        kept = stream(pipe(alice, {"streams": ["kept"]}), "kept")
        flooded = stream(pipe(alice, {"streams": ["control"]}), "control")
        kept.wait("reading", device="door")
        flooded.wait("reading", device="climate")
        refuse(world)
        until(lambda: fed(world) > FLOODED, "a loss", 120)
        levels = [n % 2 == 0 for n in range(10)]
        for level in levels:
            board.do("pin", "pins", "17", "high" if level else "low")
            until(lambda at=level: door(world) is at, "the door")
        accept(world)
        until(lambda: flooded.of("gap"), "a gap", 60)

        def steps() -> list[bool]:
            """By their numbers: what is live comes before what waited. What was read again is no step."""
            readings = sorted(kept.of("reading"), key=itemgetter("seq"))
            return [level for level, _ in groupby(r["values"]["active"] for r in readings)]

        until(lambda: steps()[-10:] == levels, "all of it", 60)
        assert not kept.of("gap")
