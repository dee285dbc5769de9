"""One device is unplugged, hangs or talks nonsense: at the caller the others stay on their beat."""

import statistics
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from support.callers import Listening, pipe, stream
from support.deployment import HEAD, World
from support.waiting import LIMIT_S, until

EVERY_S = 0.1
CONFIG = (
    HEAD
    + """
[buses.i2c1]
kind = "i2c"
device = "/dev/i2c-1"
timeout_s = 1
power = {{ bus = "pins", line = 22, off_s = 0.05 }}
[buses.i2c2]
kind = "i2c"
device = "/dev/i2c-2"
[buses.pins]
kind = "gpio"
chip = "pinctrl-bcm2835"
[buses.probe]
kind = "w1"
[buses.meter]
kind = "serial"
port = "/dev/ttyUSB0"
[buses.dust]
kind = "serial"
port = "/dev/ttyUSB1"

[devices.climate]
driver = "sht3x"
bus = "i2c1"
every_s = 0.1
[devices.lamp]
driver = "bh1750"
bus = "i2c1"
address = 0x23
every_s = 0.1
[devices.leaf]
driver = "tmp117"
bus = "i2c2"
address = 0x48
every_s = 0.1
[devices.soil]
driver = "ds18b20"
bus = "probe"
resolution = 9
every_s = 0.1
[devices.door]
driver = "gpio-input"
bus = "pins"
line = 17
every_s = 0.1
[devices.scale]
driver = "serial-lines"
bus = "meter"
pattern = '^W +(?P<weight>\\S+)'
stale_after_s = 1
[devices.scale.points]
weight = {{ unit = "g", low = 0, high = 500 }}
[devices.air]
driver = "pms5003"
bus = "dust"
every_s = 0.1

[streams.telemetry]
direction = "outbound"
devices = ["climate", "lamp", "leaf", "soil", "door", "scale", "air"]
"""
)
ON_A_BEAT = ("climate", "lamp", "leaf", "soil", "door", "air")


@pytest.fixture(scope="module")
def greenhouse(net: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("trouble"), net, config=CONFIG) as made:
        made.start()
        yield made


@pytest.fixture
def caller_of(greenhouse: World, alice: Any) -> Iterator["Watch"]:
    session = pipe(alice)
    watch = Watch(greenhouse, stream(session, "telemetry"))
    yield watch
    greenhouse.board.do("heal")

    def all_online() -> bool:
        devices = greenhouse.daemon.ask("status")["devices"]
        # The scale is online once it has said something.
        if any(d["device"] == "scale" and d["state"] != "online" for d in devices):
            greenhouse.board.do("feed", "meter", "\\nW 1\\n")
        return all(d["state"] == "online" for d in devices)

    until(all_online, "all online")
    session.cancel()
    session.wait_for_terminal(LIMIT_S)


class Watch:
    """What a caller sees."""

    def __init__(self, world: World, heard: Listening) -> None:
        self.world = world
        self.heard = heard
        until(lambda: all(self.heard.of("reading", device=name) for name in ON_A_BEAT), "first readings")
        self.mark = len(heard.events)

    def readings(self, device: str, since: int) -> list[dict[str, Any]]:
        events = list(self.heard.events)[since:]
        return [event for event in events if event["kind"] == "reading" and event["device"] == device]

    def statuses(self, device: str) -> list[tuple[str, str | None]]:
        events = list(self.heard.events)[self.mark :]
        return [
            (e["state"], e.get("reason")) for e in events if e["kind"] == "status" and e["device"] == device
        ]

    def go_on(self, others: tuple[str, ...], count: int = 8) -> int:
        """Everybody else goes on; returns where in the events that began."""
        since = len(self.heard.events)
        for name in others:
            until(lambda name=name: len(self.readings(name, since)) >= count, f"{name} goes on")
        return since

    def beat_s(self, device: str, since: int) -> float:
        at = [event["at"] / 1000 for event in self.readings(device, since)]
        return statistics.median(after - before for before, after in pairwise(at))

    def on_their_beat(self, others: tuple[str, ...], before: dict[str, float]) -> None:
        since = self.go_on(others)
        for name in others:
            # Against itself, moments before: a busy machine is slow in both.
            assert self.beat_s(name, since) < 3 * before[name] + EVERY_S, f"{name} left its beat"
            assert not self.statuses(name), f"{name} has nothing to do with it"

    def usual(self) -> dict[str, float]:
        since = self.go_on(ON_A_BEAT)
        return {name: self.beat_s(name, since) for name in ON_A_BEAT}


def others(*without: str) -> tuple[str, ...]:
    return tuple(name for name in ON_A_BEAT if name not in without)


@pytest.mark.parametrize(
    ("fault", "lost", "state", "reasons"),
    [
        (("i2c1", "corrupt", "--device", "climate"), ("climate",), "fault", {"checksum"}),
        (("i2c1", "unplug"), ("climate", "lamp"), "offline", {"unplugged"}),
        (("i2c1", "stuck"), ("climate", "lamp"), "offline", {"timeout", "bus_fault"}),
        (("dust", "unplug"), ("air",), "offline", {"unplugged"}),
    ],
    ids=lambda value: "-".join(value[:2]) if isinstance(value, tuple) and len(value) > 1 else None,
)
def test_the_others_stay_on_their_beat(
    caller_of: Watch, fault: tuple[str, ...], lost: tuple[str, ...], state: str, reasons: set[str]
) -> None:
    usual = caller_of.usual()
    caller_of.world.board.do("fault", *fault)
    for name in lost:
        until(lambda name=name: caller_of.statuses(name), f"word of {name}")
    since = len(caller_of.heard.events)
    caller_of.on_their_beat(others(*lost), usual)
    for name in lost:
        assert not caller_of.readings(name, since), f"{name} cannot know"
    caller_of.world.board.do("heal")
    for name in lost:
        until(lambda name=name: len(caller_of.statuses(name)) > 1, f"{name} back")
        until(lambda name=name: caller_of.readings(name, since), f"{name} reads again")
        (said, reason), *rest = caller_of.statuses(name)
        assert said == state
        assert reason in reasons
        assert rest == [("online", None)], "lost once, back once"
    lost_in_log = [e["device"] for e in caller_of.world.daemon.events() if e["event"] == "device_lost"]
    assert set(lost) <= set(lost_in_log)


def test_nonsense_is_no_number_and_silence_is_told(caller_of: Watch) -> None:
    heard = caller_of.heard

    def feed(text: str) -> None:
        caller_of.world.board.do("feed", "meter", text)

    feed("\\nW 12.5\\n")
    until(
        lambda: [r for r in caller_of.readings("scale", caller_of.mark) if r["values"]["weight"] == 12.5],
        "it",
    )
    since = len(heard.events)
    for text in ("nan", "1e999", "inf", "-5", "501", "1_0", "twelve"):
        feed(f"W {text}\\n")
    feed("\\x00\\xffW\\n")
    until(lambda: len(caller_of.readings("scale", since)) >= 7, "seven readings")
    for event in caller_of.readings("scale", since)[:7]:
        assert event["values"] == {"weight": None}
        assert event["flags"]["weight"] in ("no_answer", "overflow", "out_of_range")
    feed("W 7\\n")
    stale = until(
        lambda: [
            r for r in caller_of.readings("scale", since) if (r.get("flags") or {}).get("weight") == "stale"
        ],
        "word of its silence",
    )[0]
    assert stale["values"] == {"weight": 7.0}
    fresh = next(
        r for r in caller_of.readings("scale", since) if r["values"]["weight"] == 7 and not r.get("flags")
    )
    assert abs(stale["at"] - fresh["at"]) <= 50, "with the time at which it was measured"
    feed("W 7\\n")
    until(lambda: not caller_of.readings("scale", since)[-1].get("flags"), "the end of its silence")
    told = [r for r in caller_of.readings("scale", since) if (r.get("flags") or {}).get("weight") == "stale"]
    assert len(told) == 1
    assert not caller_of.statuses("scale")


def test_the_figures_tell_what_was_done(greenhouse: World) -> None:
    """After all that: every bus with its faults and the steps that were taken."""
    buses = {bus["bus"]: bus for bus in greenhouse.daemon.ask("status")["buses"]}
    assert set(buses) == {"i2c1", "i2c2", "pins", "probe", "meter", "dust"}
    assert buses["i2c1"]["faults"] >= 2
    for name in ("i2c1", "dust"):
        steps = buses[name]["recovery"]
        assert sum(step["helped"] for key, step in steps.items() if key != "retry") >= 1, steps
    assert buses["i2c2"]["faults"] == 0
    assert all(bus["jobs"] <= bus["jobs_max"] for bus in buses.values())
