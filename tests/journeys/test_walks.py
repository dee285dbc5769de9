"""A reading and a command go the ways that docs/architecture.md lists, function by function.

The daemon notes each function that is given a marked number (`walking.py`); here that is compared with the
page.
"""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from device_agent.store.files import write_atomically
from support.callers import Listening, pipe, stream
from support.deployment import World
from support.processes import Daemon
from support.waiting import until

PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"
ROW = re.compile(r"^\| \d+ \| `([^`]+)` \| [^|]+ \| ([^|]*)\|$", re.MULTILINE)


class Hop(NamedTuple):
    """A function on the way; `by` says how it gets the value, unless one before it calls it."""

    function: str
    by: str


def hops(title: str) -> list[Hop]:
    """The table under this heading."""
    section = PAGE.read_text().partition(f"## {title}\n")[2].partition("\n## ")[0]
    return [Hop(function, by.strip()) for function, by in ROW.findall(section)]


@pytest.fixture
def walking(new_world: Any) -> Any:
    """A daemon that notes who is given the number that `marker` will hold."""
    world = new_world()
    marker = world.folder / "marker"
    program = str(Path(__file__).with_name("walking.py"))
    environment = {"BLOCKS_API_KEY": "bk_device", "DEVICE_AGENT_BOARD": str(world.board.socket)}
    world.daemons.append(Daemon(world.folder, world.config, environment, python=(program, str(marker))))
    world.daemon.wait_logged("joined", 60)
    until(lambda: all(d["state"] == "online" for d in world.daemon.ask("status")["devices"]), "online", 60)
    return world, marker


def calls(marker: Path, first: str) -> dict[str, list[str]]:
    """Functions in the order in which they were first given the number; their callers, the nearest first.

    From the call of `first` on: an earlier reading with this value may be under way still.
    """
    seen = marker.with_suffix(".seen")
    found: dict[str, list[str]] = {}
    text = seen.read_text() if seen.exists() else ""
    # The last line may be half written.
    for line in text.split("\n")[:-1]:
        _, function, callers = json.loads(line)
        if found or function == first:
            found.setdefault(function, callers)
    return found


def compare(way: list[Hop], seen: dict[str, list[str]]) -> None:
    order = list(seen)
    missing = [hop.function for hop in way if hop.function not in seen]
    assert not missing, f"never given it: {missing}; these were: {order}"
    assert [hop.function for hop in way] == sorted((h.function for h in way), key=order.index)
    for n, hop in enumerate(way):
        if not hop.by:
            caller = (seen[hop.function] or ["nobody"])[0]
            assert caller in {before.function for before in way[:n]}, f"{hop.function} is called by {caller}"


def warmed(world: World, control: Listening, degrees: float) -> float:
    """Warm the sensor; the value that it then reads."""
    assert world.board is not None
    world.board.do("chip", "climate", f"temperature={degrees}")

    def newest() -> float | None:
        value = control.of("reading", device="climate")[-1:]
        return value[0]["values"]["temperature"] if value else None

    until(lambda: abs((newest() or 0) - degrees) < 0.1, f"{degrees} degrees")
    return newest() or 0


def test_the_way_of_a_reading(walking: tuple[World, Path], alice: Any) -> None:
    world, marker = walking
    way = hops("The way of a reading")
    assert 0 < len(way) <= 12
    session = pipe(alice, {"streams": ["control"]})
    control = stream(session, "control")
    marked = warmed(world, control, 61.25)
    warmed(world, control, 21.0)
    # Whole or not at all: the daemon may look at any moment.
    write_atomically(marker, repr(marked).encode())
    world.board.do("chip", "climate", "temperature=61.25")
    first = way[0].function
    until(lambda: way[-1].function in calls(marker, first), "it is published", 60)
    compare(way, calls(marker, first))
    session.cancel()


def test_the_way_of_a_command(walking: tuple[World, Path], alice: Any) -> None:
    _, marker = walking
    way = hops("The way of a command")
    assert 0 < len(way) <= 20
    session = pipe(alice, {"streams": ["control"]})
    control = stream(session, "control")
    control.wait("control", about="session")
    write_atomically(marker, b"123.456789")
    ack = control.command(kind="set", id="one", device="scale", values={"setpoint": 123.456789})
    assert ack["state"] == "done", ack
    compare(way, calls(marker, way[0].function))
    session.cancel()
