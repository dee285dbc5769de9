"""Callers that try everything at once, through every door, and what the board's record must say of it.

Each value that is sent to a dial is sent by one actor alone, so that the record names who moved it.
Whatever an actor tries (no right, a used id, a preview, too late, into a stop) has a value of its own, which
must not be in the record; what may move must be there as often as ids were given for it, at most.
"""

import itertools
import json
import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.deployment import HEAD
from support.waiting import LIMIT_S

DIALS = ("dial0", "dial1", "dial2")
DIAL = """
[buses.{0}]
kind = "serial"
port = "/dev/tty{0}"
[devices.{0}]
driver = "serial-lines"
bus = "{0}"
format = "regex"
pattern = '^W +(?P<weight>-?[0-9.]+)'
command = "SP {{{{setpoint}}}}\\n"
[devices.{0}.points]
weight = {{{{ unit = "g" }}}}
setpoint = {{{{ type = "integer", write = true, minimum = 0, maximum = 999999999, safe = 0 }}}}
[access.devices.{0}.points.setpoint]
maximum = 500000000
"""
PUMP = 22
MAX_ON_S, MAX_CYCLES = 1, 40
DOORS = (
    HEAD.replace("[network]", "concurrency = 40\n[network]")
    + """
[safety]
lease_idle_s = 0.1
guard_timeout_s = 10
[page]
listen = "127.0.0.1:{page_port}"
[mqtt]
host = "127.0.0.1"
port = {mqtt_port}
[buses.pins]
kind = "gpio"
chip = "pinctrl-bcm2835"
[devices.pump]
driver = "gpio-output"
bus = "pins"
line = 22
safe = false
max_on_s = 1
max_cycles_per_hour = 40
[streams.control]
direction = "bidirectional"
devices = ["pump", "dial0", "dial1", "dial2"]
[access]
drive = ["user:user_alice", "user:user_bob", "local:page", "local:mqtt", "local:mcp/friend"]
"""
    + "".join(map(DIAL.format, DIALS))
)
ALLOWED_MAX = 500_000_000
RULES = {
    "not_allowed": r"access rules|emergency stop|no right|owner",
    "leased": r"is driven by .* free when",
    "too_soon": r"max_cycles_per_hour|min_off_s|ids of the last day|made safe first",
    "expired": r"ttl_ms|a later command|overtaken",
    "out_of_range": r"outside|maximum|from",
    "invalid_value": r"\S+ \S+",
    "403": r"from the page itself",
}
"""What the message of a refusal must name, by its code."""


@dataclass
class Book:
    """What was sent, by value: how often it may be in the record, and how it was answered."""

    allowed: Counter[int] = field(default_factory=Counter)
    answers: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    told: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Answers by actor, state and code."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def value(self, times: int = 0, *, beyond: bool = False) -> int:
        """One that nobody has sent yet; it may move the dial `times` times."""
        with self.lock:
            value = next(self._numbers) + (ALLOWED_MAX if beyond else 0)
            self.allowed[value] = times
            return value

    def again(self, value: int) -> None:
        with self.lock:
            self.allowed[value] += 1

    def answered(self, value: int, answer: Mapping[str, Any], name: str = "") -> None:
        """Keep it, unless it is about no value; a refusal must name its rule."""
        error = answer.get("error") or {}
        with self.lock:
            self.told[name, str(answer.get("state")), error.get("code", "")] += 1
            if value:
                self.answers.setdefault(value, []).append(dict(answer))
            if answer.get("state") == "rejected":
                rule = RULES.get(error.get("code", ""))
                if rule is None or not re.search(rule, error["message"]):
                    self.faults.append(f"a refusal names no rule: {error}")
            elif answer.get("state") not in ("done", "failed", "unknown"):
                self.faults.append(f"no answer of a known form: {answer}")


Send = Callable[[dict[str, Any]], dict[str, Any]]
"""Sends a command (`kind`, `id`, `device` and so on) and returns its ack."""


@dataclass
class Actor:
    """`drives`: whether it may drive at all; `all_of_it`: also beyond the bounds of the access rules."""

    name: str
    send: Send
    drives: bool = False
    all_of_it: bool = False
    has_ids: bool = True
    """Whether a command that is sent again is the same command."""
    has_ages: bool = True
    """Whether it can say until when a command is good."""
    send_only: Callable[[dict[str, Any]], None] | None = None
    """Without waiting for the answer."""
    never: Send | None = None
    """A way in that moves nothing, whoever takes it."""


class Tries:
    """One actor's sequences, by random numbers of its own; a busy caller has several of these at once."""

    def __init__(self, actor: Actor, book: Book, seed: int, lane: int = 0) -> None:
        self.actor = actor
        self.book = book
        self.random = random.Random(f"{seed} {actor.name} {lane}")
        self.name = f"{actor.name}-{lane}"
        self.number = 0
        self.last: dict[str, Any] = {}
        self.kinds: list[Callable[[], None]] = [
            self.fresh, self.fresh, self.repetition, self.other_content, self.re_minted, self.preview,
            self.late, self.beyond, self.lost, self.back_door, self.pump,
        ]  # fmt: skip

    def step(self) -> None:
        self.random.choice(self.kinds)()

    def command(self, value: int, **members: Any) -> dict[str, Any]:
        self.number += 1
        head = {"kind": "set", "id": f"{self.name}-{self.number}", "device": self.random.choice(DIALS)}
        return {**head, "values": {"setpoint": value}, "ttl_ms": 60_000, **members}

    def tell(self, command: dict[str, Any], send: Send | None = None) -> None:
        answer = (send or self.actor.send)(command)
        self.book.answered(command["values"].get("setpoint", 0), answer, self.actor.name)

    def fresh(self) -> None:
        self.last = self.command(self.book.value(int(self.actor.drives)))
        self.tell(self.last)

    def repetition(self) -> None:
        """The same command again, as after a lost answer."""
        if self.last and self.actor.drives:
            if not self.actor.has_ids:
                self.book.again(self.last["values"]["setpoint"])
            self.tell(self.last)

    def other_content(self) -> None:
        """A used id with another value: it counts as answered, if it was taken."""
        known = self.book.answers.get(self.last["values"]["setpoint"], [{}])[0] if self.last else {}
        if known.get("state") == "done" and self.actor.has_ids:
            self.tell({**self.last, "values": {"setpoint": self.book.value()}})

    def re_minted(self) -> None:
        """The same value by a new id is a second movement."""
        if self.last and self.actor.drives:
            value = self.last["values"]["setpoint"]
            self.book.again(value)
            self.last = self.command(value)
            self.tell(self.last)

    def preview(self) -> None:
        self.tell(self.command(self.book.value(), dry_run=True))

    def late(self) -> None:
        if self.actor.has_ages:
            self.tell(self.command(self.book.value(), ttl_ms=0))

    def beyond(self) -> None:
        """Outside what the access rules let callers set; the owner may."""
        self.tell(self.command(self.book.value(int(self.actor.all_of_it), beyond=True)))

    def lost(self) -> None:
        """Nobody waits for the answer, and the same is sent again at once."""
        if self.actor.send_only is not None:
            command = self.command(self.book.value(int(self.actor.drives)))
            self.actor.send_only(command)
            self.tell(command)

    def back_door(self) -> None:
        if self.actor.never is not None:
            self.tell(self.command(self.book.value()), self.actor.never)

    def pump(self) -> None:
        self.tell({**self.command(0), "device": "pump", "values": {"on": self.random.random() < 0.7}})


class Tail:
    """The board's record, as it grows."""

    def __init__(self, path: Path) -> None:
        self._file = path.open(encoding="utf-8")
        self._rest = ""
        self.entries: list[dict[str, Any]] = []

    def news(self) -> list[dict[str, Any]]:
        """What came since the last call."""
        whole, _, self._rest = (self._rest + self._file.read()).rpartition("\n")
        new = [json.loads(line) for line in whole.splitlines()]
        self.entries += new
        return new

    def close(self) -> None:
        self._file.close()


def moved(entries: list[dict[str, Any]]) -> Counter[int]:
    """How often a dial was set to each value, by the board's record."""
    sent = dict.fromkeys(DIALS, "")
    for dial in DIALS:
        sent[dial] = "".join(entry.get("bytes", "") for entry in entries if entry.get("bus") == dial)
    return Counter(int(value) for said in sent.values() for value in re.findall(r"SP (\d+)\n", said))


def judge(book: Book, counts: Counter[int]) -> list[str]:
    """What the record says that must not be."""
    faults = list(book.faults)
    for value, times in counts.items():
        if value and times > book.allowed[value]:
            faults.append(f"{value} moved a dial {times} times, and might {book.allowed[value]} times")
    for value, answers in book.answers.items():
        fresh = [
            a for a in answers if a["state"] == "done" and not a.get("repeated") and not a.get("dry_run")
        ]
        if value and len(fresh) > counts[value]:
            faults.append(f"{value} is said to be done {len(fresh)} times, and was {counts[value]} times")
        if all(a["state"] == "rejected" for a in answers) and counts[value] and value:
            faults.append(f"{value} was refused each time, and moved a dial: {answers}")
    return faults


def pump_faults(entries: list[dict[str, Any]]) -> list[str]:
    """Whether the pump was switched on more often, or stayed on for longer, than its limits allow."""
    faults, on_s = [], None
    turns = [(entry["t"], entry["level"]) for entry in entries if entry.get("line") == PUMP]
    for at_s, level in turns:
        if not level and on_s is not None and at_s - on_s > MAX_ON_S + LIMIT_S:
            faults.append(f"max_on_s: the pump was on for {at_s - on_s:.1f} s")
        on_s = at_s if level else None
    begun = [at_s for at_s, level in turns if level]
    for first, after in zip(begun, begun[MAX_CYCLES:], strict=False):
        if after - first < 3600:
            faults.append(f"max_cycles_per_hour: more than {MAX_CYCLES} in {after - first:.0f} s")
    return faults


def run(lanes: list[Tries], sequences: int, pause: Callable[[threading.Event], None]) -> None:
    """All lanes at once, until so many sequences were made in all, no actor more than an eighth of them, so
    that the slow ones have their part; `pause` is called now and then, with what says that it is over."""
    made, lock, over, broken = Counter[str](), threading.Lock(), threading.Event(), []

    def go(one: Tries) -> None:
        try:
            while not over.is_set() and mine(one.actor.name):
                one.step()
        except BaseException as error:  # noqa: BLE001 - told by the test's own thread
            broken.append(error)
            over.set()

    def mine(name: str) -> bool:
        with lock:
            if made.total() >= sequences:
                over.set()
                return False
            made[name] += 1
            return made[name] <= sequences / 8

    threads = [threading.Thread(target=go, args=(one,), daemon=True) for one in lanes]
    for thread in threads:
        thread.start()
    try:
        while not over.wait(0.2):
            pause(over)
    finally:
        over.set()
        for thread in threads:
            thread.join(2 * LIMIT_S)
    if broken:
        raise broken[0]
