"""A wall clock that is not set, or jumps by years: stamps, sessions and commands of a whole daemon."""

import contextlib
import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_outages import accept, accounted, caught_up, refuse
from world import LIMIT_S, Listening, World, pipe, stream, until

from device_agent.clock import EARLIEST_TRUE_MS
from device_agent.testing.network import NetworkThread

pytestmark = [
    pytest.mark.filterwarnings("ignore:Mutable config:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

YEARS_S = 12 * 365 * 86_400.0
RTC = """
[devices.rtc]
driver = "ds3231"
bus = "i2c1"
every_s = 0.2
"""


@pytest.fixture
def shift(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set how wrong the daemon's wall clock is, and what its machine thinks of it."""
    file = tmp_path / "wall.json"

    def write(shift_s: float, knows: bool | None = False) -> None:
        new = tmp_path / "wall.new"
        new.write_text(json.dumps({"shift_s": shift_s, "knows": knows}))
        new.replace(file)

    write(0.0, True)
    monkeypatch.setenv("DEVICE_AGENT_CLOCK", str(file))
    return write


@pytest.fixture
def more() -> str:
    """What else is configured."""
    return ""


@pytest.fixture
def place(net: NetworkThread, tmp_path: Path, shift: Any, more: str) -> Iterator[Any]:
    """A world whose daemon has a link of its own."""
    name = f"time-{tmp_path.name}"
    net.run(net.net.open_link(name))
    with World(tmp_path, net, link=name, more=more) as world:
        world.link = name  # type: ignore[attr-defined]
        yield world
        accept(world)


def forget_the_time(world: World) -> None:
    """As after a start of the machine: no process of this boot knows the time."""
    (world.folder / "state" / "run" / "clock.json").unlink(missing_ok=True)


def begin_alone(world: World) -> None:
    """Start the daemon, and wait until it answers and samples."""

    def samples() -> bool:
        with contextlib.suppress(OSError):
            return bool(world.daemon.device("climate")["state"] == "online")
        return False

    world.start(joined=False)
    until(samples, "a daemon that samples")


def waiting(world: World) -> int:
    return int(world.daemon.ask("status")["outbox"]["events"])


def true_times(heard: Listening, began_ms: float) -> None:
    """Every stamp lies within the time of this test, and in the order of the numbers."""
    now_ms = time.time() * 1000
    events = sorted(heard.events, key=lambda event: event["seq"])
    wrong = [event for event in events if not began_ms - 500 <= event["at"] <= now_ms + 500]
    assert not wrong, wrong[:3]
    assert not [event for event in events if "clock" in event]
    readings = [
        event["at"] for event in events if event["kind"] == "reading" and event["device"] == "climate"
    ]
    assert all(b - a > -200 for a, b in itertools.pairwise(readings))


def test_what_a_board_without_a_time_kept_is_dated_before_it_goes_out(
    place: Any, shift: Any, alice: Any
) -> None:
    began_ms = time.time() * 1000
    place.start()
    session = pipe(alice, {"streams": ["control"], "every_s": 0.05}, duration=30)
    heard = stream(session, "control")
    heard.wait("reading", device="climate")
    refuse(place)
    place.daemon.kill()
    # A board that starts at its last shutdown, two days ago, and then in 1970; twice killed, nobody to ask.
    before = 0
    for shift_s in (-2 * 86_400.0, -56 * 365 * 86_400.0):
        forget_the_time(place)
        shift(shift_s)
        begin_alone(place)
        until(lambda before=before: waiting(place) > before + 40, "events that have no time")
        latest = place.daemon.device("climate")["latest"]
        assert latest["clock"] == "unset"
        assert latest["at"] < EARLIEST_TRUE_MS
        assert place.daemon.ask("status")["clock"] == {"set": False, "source": ""}
        place.daemon.logged("clock_unset")
        before = waiting(place)
        place.daemon.kill()
    begin_alone(place)
    accept(place)
    place.daemon.wait_logged("clock_set")
    assert place.daemon.ask("status")["clock"] == {"set": True, "source": "network"}
    caught_up(place, heard)
    accounted(heard)
    true_times(heard, began_ms)
    assert [event for event in heard.events if event.get("late")]
    notes = [row for row in place.daemon.ask("journal") if row["what"] == "clock"]
    assert "machine started at" in notes[-1]["rule"]
    session.cancel()
    session.wait_for_terminal(LIMIT_S)


def test_jumps_of_years_both_ways_move_no_stamp_no_session_and_no_command(
    place: Any, shift: Any, alice: Any
) -> None:
    began_ms = time.time() * 1000
    shift(-YEARS_S)
    place.start()
    session = pipe(alice, {"streams": ["control"], "every_s": 0.05}, duration=2)
    heard = stream(session, "control")
    for n, shift_s in enumerate((YEARS_S, -YEARS_S, -56 * 365 * 86_400.0, 0.0, YEARS_S)):
        shift(shift_s, None)
        ack = heard.command(kind="set", id=f"on{n}", device="valve", values={"on": True}, ttl_ms=5000)
        assert ack["state"] == "done", ack
        seen = len(heard.of("reading", device="climate"))
        until(lambda seen=seen: len(heard.of("reading", device="climate")) > seen + 5, "readings go on")
    assert 60 < place.daemon.ask("status")["sessions"][0]["remaining_s"] <= 120
    assert heard.command(kind="set", id="on0", device="valve", values={"on": True})["state"] == "done"
    assert place.board.levels(27).count(0) == 1
    accounted(heard)
    true_times(heard, began_ms)
    # A start with a wrong clock neither ends the session nor begins it anew.
    place.daemon.kill()
    forget_the_time(place)
    shift(-YEARS_S)
    place.start()
    caught_up(place, heard)
    accounted(heard)
    true_times(heard, began_ms)
    session.cancel()
    assert session.wait_for_terminal(LIMIT_S)["state"] == "canceled"


@pytest.mark.parametrize("more", [RTC], ids=["ds3231"])
def test_a_clock_chip_tells_the_time_and_is_set_by_who_knows_better(place: Any, shift: Any) -> None:
    refuse(place)
    shift(-56 * 365 * 86_400.0)
    place.board.do("chip", "rtc", f"time={EARLIEST_TRUE_MS // 1000 + 1_000_000}")
    begin_alone(place)
    until(lambda: place.daemon.ask("status")["clock"]["source"] == "device", "the chip's time")
    climate = place.daemon.ask("read", device="climate")
    assert "clock" not in climate
    assert abs(climate["at"] - EARLIEST_TRUE_MS - 1_000_000_000) < 60_000
    accept(place)
    until(lambda: place.daemon.ask("status")["clock"]["source"] == "network", "the network's time")
    place.daemon.wait_logged("clock_chip_set")
    until(
        lambda: abs(place.daemon.ask("read", device="rtc")["values"]["time"] - time.time()) < 5, "it is right"
    )


def test_history_of_a_board_without_a_time_is_dated(place: Any, shift: Any) -> None:
    began_ms = time.time() * 1000
    refuse(place)
    shift(-56 * 365 * 86_400.0)
    begin_alone(place)
    first = place.daemon.ask("read", device="climate")
    assert first["clock"] == "unset"
    accept(place)
    place.daemon.wait_logged("clock_set")
    place.daemon.ask("history_flush")
    answer = place.daemon.ask("history", devices=["climate"], **{"from": round(began_ms) - 1000})
    rows = json.loads(answer["data"])["readings"]
    assert rows
    assert all(began_ms - 1000 <= row["at"] <= time.time() * 1000 + 1000 for row in rows)
