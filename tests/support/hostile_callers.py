"""Callers that try everything at once, through every door, and what the board's record must say of it.

Each value that is sent to the dial is sent by one actor alone, so that the record names who moved it.
Whatever an actor tries (no right, a used id, a preview, too late, into a stop) has a value of its own, which
must not be in the record; what may move must be there as often as ids were given for it, at most.
"""

import itertools
import json
import random
import re
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPResponse
from typing import Any

from device_agent.operate.control_socket import ask
from support.callers import Listening, question, result
from support.deployment import HEAD, World
from support.waiting import LIMIT_S, until

DOORS = (
    HEAD
    + """
[safety]
lease_idle_s = 0.1
guard_timeout_s = 10
[page]
listen = "127.0.0.1:{page_port}"
[buses.wire]
kind = "serial"
port = "/dev/ttyUSB0"
[buses.pins]
kind = "gpio"
chip = "pinctrl-bcm2835"
[devices.dial]
driver = "serial-lines"
bus = "wire"
format = "regex"
pattern = '^W +(?P<weight>-?[0-9.]+)'
command = "SP {{setpoint}}\\n"
[devices.dial.points]
weight = {{ unit = "g" }}
setpoint = {{ type = "integer", write = true, minimum = 0, maximum = 999999999, safe = 0 }}
[devices.pump]
driver = "gpio-output"
bus = "pins"
line = 22
safe = false
max_on_s = 1
max_cycles_per_hour = 40
[streams.control]
direction = "bidirectional"
devices = ["dial", "pump"]
[access]
drive = ["user:user_alice", "user:user_bob", "local:page", "local:mcp/friend"]
[access.devices.dial.points.setpoint]
maximum = 500000000
"""
)
ALLOWED_MAX = 500_000_000
RULES = {
    "not_allowed": r"access rules|emergency stop|no right|owner",
    "leased": r"is driven by .* free when",
    "too_soon": r"max_cycles_per_hour|min_off_s|ids of the last day|made safe first",
    "expired": r"ttl_ms|a later command|overtaken",
    "out_of_range": r"outside|maximum|from",
    "invalid_value": r"\S+ \S+",
}
"""What the message of a refusal must name, by its code."""


@dataclass
class Book:
    """What was sent, by value: how often it may be in the record, and how it was answered."""

    allowed: Counter[int] = field(default_factory=Counter)
    answers: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
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

    def answered(self, value: int, answer: Mapping[str, Any]) -> None:
        """Keep it; a refusal must name its rule."""
        error = answer.get("error") or {}
        with self.lock:
            self.answers.setdefault(value, []).append(dict(answer))
            if answer.get("state") == "rejected":
                rule = RULES.get(error.get("code", ""))
                if rule is None or not re.search(rule, error["message"]):
                    self.faults.append(f"a refusal names no rule: {error}")
            elif answer.get("state") not in ("done", "failed", "unknown"):
                self.faults.append(f"no answer of a known form: {answer}")


Send = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass
class Actor:
    """`drives`: whether it may drive at all; `all_of_it`: also beyond the bounds of the access rules."""

    name: str
    send: Send
    drives: bool = False
    all_of_it: bool = False
    send_only: Callable[[dict[str, Any]], None] | None = None
    """Without waiting for the answer."""


class Tries:
    """One actor's sequences, by its own random numbers."""

    def __init__(self, actor: Actor, book: Book, seed: int) -> None:
        self.actor = actor
        self.book = book
        self.random = random.Random(f"{seed} {actor.name}")
        self.number = 0
        self.last: dict[str, Any] = {}
        self.kinds: list[Callable[[], None]] = [
            self.fresh, self.fresh, self.repetition, self.other_content, self.re_minted, self.preview,
            self.late, self.beyond, self.lost, self.pump,
        ]  # fmt: skip

    def step(self) -> None:
        self.random.choice(self.kinds)()

    def command(self, value: int, **members: Any) -> dict[str, Any]:
        self.number += 1
        head = {"kind": "set", "id": f"{self.actor.name}-{self.number}", "device": "dial"}
        return {**head, "values": {"setpoint": value}, "ttl_ms": 20_000, **members}

    def tell(self, command: dict[str, Any]) -> dict[str, Any]:
        answer = self.actor.send(command)
        if "setpoint" in command["values"]:
            self.book.answered(command["values"]["setpoint"], answer)
        return answer

    def fresh(self) -> None:
        self.last = self.command(self.book.value(int(self.actor.drives)))
        self.tell(self.last)

    def repetition(self) -> None:
        """The same command again, as after a lost answer."""
        if self.last and self.actor.drives:
            self.tell(self.last)

    def other_content(self) -> None:
        """A used id with another value: it counts as answered, if it was taken."""
        if (
            self.last
            and self.book.answers.get(self.last["values"]["setpoint"], [{}])[0].get("state") == "done"
        ):
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

    def pump(self) -> None:
        self.tell({**self.command(0), "device": "pump", "values": {"on": self.random.random() < 0.7}})


class Streaming:
    """An official caller's stream, one sender at a time; answers of old commands are passed over."""

    def __init__(self, listening: Listening) -> None:
        self.listening = listening
        listening.wait("control", about="session")

    def send(self, command: dict[str, Any]) -> dict[str, Any]:
        self.listening.stream.write(command)
        return dict(until(lambda: self._ack(command["id"]), f"the ack of {command}"))

    def _ack(self, id_: str) -> dict[str, Any] | None:
        events = self.listening.events
        while events:
            event = events.pop(0)
            if event["kind"] == "ack" and event["id"] == id_:
                return dict(event)
        return None


def asking(client: Any) -> Send:
    """By request tasks."""

    def send(command: dict[str, Any]) -> dict[str, Any]:
        body = {name: value for name, value in command.items() if name not in ("kind", "id", "ttl_ms")}
        found = result(question(client, {"op": command["kind"], **body}))
        return dict(found.get("ack") or {"state": found["state"], "error": found["error"]})

    return send


def at_socket(world: World, **by: str) -> Send:
    """On the device: the owner, or a door (`as`)."""

    def send(command: dict[str, Any]) -> dict[str, Any]:
        asked = {name: value for name, value in command.items() if name != "kind"}
        answer = ask(world.folder / "state/run/control.sock", {"op": command["kind"], **asked, **by}, LIMIT_S)
        return dict(answer["result"]) if answer["ok"] else {"state": "rejected", "error": answer["error"]}

    return send


def on_page(port: int) -> Send:
    """As the page's script does."""

    def fetch(path: str, body: bytes | None = None, **headers: str) -> str:
        url = f"http://127.0.0.1:{port}{path}"
        asked = urllib.request.Request(url, body, {k.replace("_", "-"): v for k, v in headers.items()})
        answer: HTTPResponse
        with urllib.request.urlopen(asked, timeout=LIMIT_S) as answer:
            return answer.read().decode()

    token = fetch("/").partition('name="page-token" content="')[2].partition('"')[0]

    def send(command: dict[str, Any]) -> dict[str, Any]:
        asked = {"op": command["kind"], **{k: v for k, v in command.items() if k != "kind"}}
        answer = json.loads(fetch("/api/ask", json.dumps(asked).encode(), X_Page_Token=token))
        return dict(answer["result"]) if answer["ok"] else {"state": "rejected", "error": answer["error"]}

    return send


def moved(entries: list[dict[str, Any]]) -> Counter[int]:
    """How often the dial was set to each value, by the board's record."""
    sent = "".join(entry.get("bytes", "") for entry in entries if entry.get("bus") == "wire")
    return Counter(int(value) for value in re.findall(r"SP (\d+)\n", sent))


def judge(book: Book, counts: Counter[int]) -> list[str]:
    """What the record says that must not be."""
    faults = list(book.faults)
    for value, times in counts.items():
        if value and times > book.allowed[value]:
            faults.append(f"{value} moved the dial {times} times, and might {book.allowed[value]} times")
    for value, answers in book.answers.items():
        fresh = [
            a for a in answers if a["state"] == "done" and not a.get("repeated") and not a.get("dry_run")
        ]
        if value and len(fresh) > counts[value]:
            faults.append(f"{value} is said to be done {len(fresh)} times, and was {counts[value]} times")
        if all(a["state"] == "rejected" for a in answers) and counts[value] and value:
            faults.append(f"{value} was refused each time, and moved the dial: {answers}")
    return faults


def run(tries: list[Tries], sequences: int, pause: Callable[[], None]) -> None:
    """All actors at once, until so many sequences were made in all; `pause` is called now and then."""
    left, lock, broken = itertools.count(), threading.Lock(), []

    def go(one: Tries) -> None:
        try:
            while not broken and next_one() < sequences:
                one.step()
        except BaseException as error:  # noqa: BLE001 - told by the test's own thread
            broken.append(error)

    def next_one() -> int:
        with lock:
            return next(left)

    threads = [threading.Thread(target=go, args=(one,)) for one in tries]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads) and not broken:
        time.sleep(0.2)
        pause()
    for thread in threads:
        thread.join(LIMIT_S)
    if broken:
        raise broken[0]
