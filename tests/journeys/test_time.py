"""A wall clock that is not set, or jumps by years: stamps, sessions and commands of a whole daemon."""

import contextlib
import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from device_agent.clock import EARLIEST_TRUE_MS
from device_agent.testing.network import NetworkThread
from support.callers import Listening, pipe, stream
from support.deployment import CONFIG, World
from support.outages import accept, accounted, caught_up, refuse
from support.waiting import LIMIT_S, until

YEARS_S = 12 * 365 * 86_400.0
MAX_ON_S, LEASE_IDLE_S = 3, 6
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
def config() -> str:
    return CONFIG


@pytest.fixture
def place(net: NetworkThread, tmp_path: Path, shift: Any, config: str, more: str) -> Iterator[Any]:
    """A world whose daemon has a link of its own."""
    name = f"time-{tmp_path.name}"
    net.run(net.net.open_link(name))
    with World(tmp_path, net, config=config, link=name, more=more) as world:
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


def switched(world: World, level: int) -> list[float]:
    """When the daemon switched the valve (active low) so, in seconds of the board's record."""
    return [
        entry["t"]
        for entry in world.board.record()
        if (entry.get("line"), entry.get("level"), entry.get("by")) == (27, level, "daemon")
    ]


LIMITS = CONFIG.replace("max_on_s = 600", f"max_on_s = {MAX_ON_S}").replace(
    "lease_idle_s = 5", f"lease_idle_s = {LEASE_IDLE_S}"
)


@pytest.mark.parametrize("config", [LIMITS], ids=["limits"])
def test_jumps_of_years_move_no_limit_no_lease_and_no_ttl(
    place: Any, shift: Any, caller: Callable[..., Any]
) -> None:
    place.start()
    numbers = itertools.count()
    sessions = [pipe(caller(name), {"streams": ["control"]}) for name in ("alice", "bob")]
    driver, rival = (stream(session, "control") for session in sessions)

    def switch(heard: Listening, on: bool, ttl_ms: int = 5000) -> dict[str, Any]:
        id_ = f"c{next(numbers)}"
        return dict(heard.command(kind="set", id=id_, device="valve", values={"on": on}, ttl_ms=ttl_ms))

    assert switch(driver, True)["state"] == "done"
    on_s = switched(place, 0)[-1]
    for round_, shift_s in enumerate((YEARS_S, -YEARS_S, 0.0), 1):
        shift(shift_s, None)
        refused = switch(rival, False)
        assert refused.get("error", {}).get("code") == "leased", refused
        # Neither at once, for years have passed, nor never.
        until(lambda round_=round_: len(switched(place, 1)) > round_, "max_on_s")
        assert switched(place, 1)[-1] - on_s > MAX_ON_S - 0.1
        until(lambda rival=rival: switch(rival, True)["state"] == "done", "the lease's end")
        before_s, on_s = on_s, switched(place, 0)[-1]
        assert on_s - before_s > LEASE_IDLE_S - 0.1
        assert len(switched(place, 0)) == round_ + 1
        driver, rival = rival, driver
    # Sent while the agent's link was down, and too late when it is back, whatever the wall clock says.
    until(lambda: len(switched(place, 1)) > round_ + 1, "max_on_s")
    refuse(place)
    id_ = f"c{next(numbers)}"
    driver.stream.write({"kind": "set", "id": id_, "device": "valve", "values": {"on": True}, "ttl_ms": 1000})
    sent_s = time.monotonic()
    shift(-YEARS_S, None)
    until(lambda: time.monotonic() - sent_s > 1.5, "the command's time is over")
    accept(place)
    assert driver.wait("ack", 60, id=id_)["error"]["code"] == "expired"
    assert len(switched(place, 0)) == round_ + 1
    for session in sessions:
        session.cancel()
        session.wait_for_terminal(LIMIT_S)


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
