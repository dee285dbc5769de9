"""What callers send on a stream: parsed, carried out with the right sender, answered."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from device_agent import background
from device_agent.commands.authorization import Actor
from device_agent.config import Config
from device_agent.config.access import AccessConfig
from device_agent.errors import Rejected
from device_agent.messages.commands import Pause, SessionCommand, parse
from device_agent.messages.events import EventDraft
from device_agent.network import Caller, StreamSpec, Unreadable
from device_agent.tasks import stream_input
from device_agent.tasks.services import Services
from device_agent.tasks.stream_input import Attachment, Former, StreamInput
from device_agent.tasks.stream_scope import StreamScope
from device_agent.testing.clock import SteppedClock
from support.control_side import Relay
from support.fake_task_link import FakeStream, FakeTaskLink, start_of
from support.waiting import until_async

SPEC = StreamSpec("control", "control", "bidirectional", "events", "shared")


class Stream:
    """A shared stream with one session for each caller, and all its answers."""

    def __init__(self, services: Services, *callers: str) -> None:
        self.wire = FakeStream(SPEC, None)
        self.attached: dict[str, Attachment] = {}
        self.answers: list[dict[str, Any]] = []
        self.session_commands: list[SessionCommand] = []
        for name in callers:
            caller = Caller("org", name)
            link = FakeTaskLink(start_of(f"task-{name}", "pipe", caller=caller))
            actor = Actor(f"task-{name}", f"session {name}", caller, "pipe")
            self.attached[f"task-{name}"] = Attachment(link, actor, self.wire, 0.0)
        scope = StreamScope(SPEC, services.config.streams["control"], {"up": services.devices["up"]})
        self.former: dict[Caller, Former] = {}
        self.input = StreamInput(
            services, scope, self.attached, self.answer, self.on_session_command, self.former
        )
        self.input.start(self.wire)

    def answer(self, draft: EventDraft) -> None:
        self.answers.append(json.loads(draft.numbered(1)))

    def on_session_command(self, command: SessionCommand) -> dict[str, Any]:
        if not isinstance(command, Pause):
            raise Rejected("unknown_device", "there is none")
        self.session_commands.append(command)
        return {"more": 1}

    async def ask(self, event: Any, sender: str = "alice") -> dict[str, Any]:
        known = len(self.answers)
        self.wire.send(event, sender=f"{sender}-stream-0001")
        await until_async(lambda: len(self.answers) > known)
        return self.answers[-1]


Open = Callable[..., Stream]


@pytest.fixture
async def opened(services: Services) -> AsyncIterator[Open]:
    made: list[Stream] = []

    def make(*callers: str) -> Stream:
        made.append(Stream(services, *callers))
        return made[-1]

    yield make
    for stream in made:
        await stream.input.close()


def only_alice_drives(config: Config) -> Config:
    access = AccessConfig.model_validate({"read": "anyone", "drive": ["user:alice"]})
    return dataclasses.replace(config, access=access)


def set_(id_: str, **members: Any) -> dict[str, Any]:
    return {"kind": "set", "id": id_, "device": "up", "values": {"on": True}, **members}


@pytest.mark.parametrize(
    ("event", "id_"),
    [([1], ""), ({"kind": "fly", "id": "a"}, "a"), ({"kind": "set", "id": "b"}, "b"), ("text", "")],
)
async def test_what_is_no_command_is_rejected_with_its_id(opened: Open, event: Any, id_: str) -> None:
    ack = await opened("alice").ask(event)
    assert (ack["kind"], ack["id"], ack["state"]) == ("ack", id_, "rejected")
    assert ack["error"]["code"] == "invalid_value"


async def test_events_of_another_instance_are_no_commands(opened: Open) -> None:
    stream = opened("alice")
    for kind in ("reading", "status", "gap", "ack", "control"):
        stream.wire.send({"kind": kind})
    assert (await stream.ask(set_("1")))["id"] == "1"
    assert len(stream.answers) == 1


async def test_a_command_is_carried_out_and_answered(opened: Open) -> None:
    ack = await opened("alice").ask(set_("1"))
    assert ack["state"] == "done"
    assert Relay.told == [("relay", {"on": True})]


async def test_what_this_stream_does_not_carry_is_unknown_here(opened: Open) -> None:
    ack = await opened("alice").ask(set_("1", device="down"))
    assert ack["error"]["code"] == "unknown_device"


async def test_a_dry_run_moves_nothing(opened: Open) -> None:
    ack = await opened("alice").ask(set_("1", dry_run=True))
    assert (ack["state"], ack["dry_run"]) == ("done", True)
    assert Relay.told == []


@pytest.mark.parametrize(("time_ms", "code"), [(None, "clock_unset"), (6000.0, "expired")])
async def test_its_age_is_by_the_networks_clock(opened: Open, time_ms: float | None, code: str) -> None:
    stream = opened("alice")
    stream.attached["task-alice"].link.time_ms = time_ms  # type: ignore[attr-defined]
    assert (await stream.ask(set_("1")))["error"]["code"] == code
    assert Relay.told == []


async def test_the_sender_is_the_session_whose_caller_it_names(opened: Open, services: Services) -> None:
    stream = opened("alice", "bob")
    await stream.ask(set_("1"), sender="bob")
    lease = services.executor.leases.holder("up", services.clock.monotonic_s())
    assert lease is not None
    assert lease.holder == "task-bob"


async def test_a_sign_of_life_is_of_the_only_caller_there_can_be(opened: Open, services: Services) -> None:
    stream = opened("alice")
    now_s = services.clock.monotonic_s()
    await stream.ask({"kind": "pause"}, sender="whatever")
    assert stream.attached["task-alice"].last_inbound_s == now_s


async def test_nobody_gives_a_sign_of_life_for_another(opened: Open) -> None:
    stream = opened("alice", "bob")
    for sender in ("alice", "bob", "somebody"):
        await stream.ask({"kind": "pause"}, sender=sender)
    assert [one.last_inbound_s for one in stream.attached.values()] == [0.0, 0.0]


EVE = Actor("task:eve", "session eve", Caller("org", "eve"), "pipe")


async def test_who_has_left_a_shared_stream_may_have_sent_it_still(opened: Open, services: Services) -> None:
    services.executor.use_config(only_alice_drives(services.executor.config))
    stream = opened("alice")
    stream.former[EVE.caller] = Former(EVE, services.clock.monotonic_s() + 60)
    assert (await stream.ask(set_("1")))["error"]["code"] == "not_allowed"
    stream.former[EVE.caller] = Former(EVE, services.clock.monotonic_s())
    assert (await stream.ask(set_("1")))["state"] == "done", "the id is not used up"


async def test_who_drives_may_make_safe_though_a_stranger_joined(opened: Open, services: Services) -> None:
    services.executor.use_config(only_alice_drives(services.executor.config))
    stream = opened("alice")
    assert (await stream.ask(set_("1")))["state"] == "done"
    stream.former[EVE.caller] = Former(EVE, services.clock.monotonic_s() + 60)
    assert (await stream.ask(set_("2")))["error"]["code"] == "not_allowed"
    assert (await stream.ask(set_("3", values={"on": False})))["state"] == "done"
    assert Relay.told == [("relay", {"on": True}), ("relay", {"on": False})]


async def test_a_stop_that_a_reader_may_have_sent_latches_nothing(opened: Open, services: Services) -> None:
    services.executor.use_config(only_alice_drives(services.executor.config))
    stream = opened("alice")
    await stream.ask(set_("1"))
    stream.former[EVE.caller] = Former(EVE, services.clock.monotonic_s() + 60)
    ack = await stream.ask({"kind": "stop", "id": "s"})
    assert (ack["state"], ack["error"]["code"]) == ("rejected", "not_allowed")
    assert not services.safe_states.away(["up"]), "what alice drove is safe"
    stream.former.clear()
    assert (await stream.ask(set_("2")))["state"] == "done", "nothing is latched"
    assert (await stream.ask({"kind": "stop", "id": "s"}))["state"] == "done"
    assert (await stream.ask(set_("4")))["error"]["code"] == "not_allowed"


async def test_nobody_uses_up_the_ids_of_another(opened: Open) -> None:
    stream = opened("alice", "bob")
    await stream.ask(set_("1", device="fly"), sender="alice")
    assert (await stream.ask(set_("1"), sender="bob"))["state"] == "done"
    again = await stream.ask(set_("1"), sender="bob")
    assert (again["id"], again["repeated"]) == ("1", True)
    assert (await stream.ask(set_("1", ttl_ms=4000), sender="bob")).get("repeated") is None


async def test_session_commands_are_answered_as_the_session_says(opened: Open) -> None:
    stream = opened("alice")
    answer = await stream.ask({"kind": "pause"})
    assert (answer["kind"], answer["about"], answer["ok"], answer["more"]) == ("control", "pause", True, 1)
    refused = await stream.ask({"kind": "resume"})
    assert (refused["about"], refused["ok"]) == ("resume", False)
    assert refused["error"] == {"code": "unknown_device", "message": "there is none"}


async def test_a_stop_waits_for_no_command(
    opened: Open, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_input, "COMMANDS_AT_ONCE", 1)
    stream = opened("alice")
    Relay.hold.clear()
    stream.wire.send(set_("1"))
    assert await asyncio.to_thread(Relay.begun.wait, 10)
    stream.wire.send({"kind": "stop", "id": "halt"})
    command, actor = parse(set_("2")), stream.attached["task-alice"].actor
    await until_async(lambda: services.executor.preview(command, actor).error is not None)  # type: ignore[arg-type]
    assert stream.answers == [], "the command holds its bus still"
    Relay.hold.set()
    await until_async(lambda: len(stream.answers) == 2)
    assert {a["id"] for a in stream.answers} == {"1", "halt"}


async def test_commands_wait_for_their_turn_and_too_many_are_refused(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_input, "COMMANDS_AT_ONCE", 2)
    monkeypatch.setattr(stream_input, "COMMANDS_MAX", 4)
    stream = opened("alice")
    Relay.hold.clear()
    for number in range(5):
        stream.wire.send(set_(str(number)))
    assert await asyncio.to_thread(Relay.begun.wait, 10)
    await until_async(lambda: len(stream.answers) == 1)
    assert (stream.answers[0]["id"], stream.answers[0]["error"]["code"]) == ("4", "too_soon")
    Relay.hold.set()
    await until_async(lambda: len(stream.answers) == 5)
    assert [a["id"] for a in stream.answers[1:]] == ["0", "1", "2", "3"], (
        "one after the other, in their order"
    )


async def test_a_command_that_makes_safe_comes_before_those_that_wait(
    opened: Open, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_input, "COMMANDS_AT_ONCE", 2)
    stream = opened("alice")
    Relay.hold.clear()
    for number in range(4):
        stream.wire.send(set_(str(number)))
    assert await asyncio.to_thread(Relay.begun.wait, 10)
    stream.wire.send(set_("off", values={"on": False}))
    await until_async(lambda: stream.wire._inbound.empty())
    Relay.hold.set()
    await until_async(lambda: len(stream.answers) == 5)
    answers = {a["id"]: a.get("error", {}).get("code", a["state"]) for a in stream.answers}
    assert answers == {"0": "done", "off": "done", "1": "expired", "2": "expired", "3": "expired"}
    assert Relay.told[-1] == ("relay", {"on": False})


async def test_many_refusals_have_one_answer(
    opened: Open, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_input, "UNANSWERED_S", 0.1)
    stream = opened("alice")
    for _ in range(200):
        stream.wire.send(7)

    def together() -> list[int]:
        texts = [answer["error"]["message"] for answer in stream.answers]
        return [int(text.split()[0]) for text in texts if "more messages were refused" in text]

    await until_async(lambda: sum(together()) == 100)
    assert len(stream.answers) == 100 + len(together())
    assert len(together()) < 10


async def test_answers_to_refusals_are_bounded_over_all_streams_of_a_caller(services: Services) -> None:
    clock = services.clock
    assert [services.refusals.take("alice", clock) for _ in range(101)] == [True] * 100 + [False]
    assert services.refusals.take("bob", clock)
    assert isinstance(clock, SteppedClock)
    clock.step(1.0)
    assert [services.refusals.take("alice", clock) for _ in range(21)] == [True] * 20 + [False]


async def turns_until(reached: Callable[[], bool]) -> None:
    for _ in range(10_000):
        if reached():
            return
        await asyncio.sleep(0)
    raise AssertionError("not within 10 000 turns")


async def test_a_flood_of_one_caller_lets_others_have_their_turn(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted in turns of the event loop, of which a dry run needs the same number on every machine."""
    monkeypatch.setattr(background, "TURN_AFTER_S", 0.0)
    flood, other = opened("mallory"), opened("alice")
    for number in range(5000):
        flood.wire.send({"kind": "fly", "id": str(number)})
    await turns_until(lambda: flood.wire._inbound.qsize() < 4900)
    left = flood.wire._inbound.qsize()
    other.wire.send(set_("1", dry_run=True))
    await turns_until(lambda: bool(other.answers))
    assert left - flood.wire._inbound.qsize() < 50
    assert other.answers[0]["state"] == "done"
    await until_async(flood.wire._inbound.empty)


async def test_a_refused_command_makes_no_task_and_takes_one_turn(opened: Open, services: Services) -> None:
    """Counted: a flood of commands without a right is to be as cheap as one of what is no command."""
    services.executor.use_config(only_alice_drives(services.executor.config))
    stream, loop = opened("mallory"), asyncio.get_running_loop()
    await stream.ask(set_("0"))
    made: list[str] = []

    def make(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        made.append(work.__qualname__)
        return asyncio.Task(work, loop=loop, **options)

    loop.set_task_factory(make)
    before, turns = services.executor.refusals, 0
    for number in range(1000):
        stream.wire.send(set_(str(number)))
    while services.executor.refusals < before + 1000:
        await asyncio.sleep(0)
        turns += 1
    loop.set_task_factory(None)
    assert made.count("BackgroundTasks._once") < 20, "each answers for many"
    assert turns <= 1000 + 10


@pytest.mark.parametrize(
    "event",
    [
        {"kind": []},
        {"kind": "stop", "id": "\ud800"},
        {"kind": "\ud800"},
        {"kind": "pause", "\ud800" * 9000: 1},
        Unreadable("why"),
    ],
)
async def test_no_event_ends_the_input(opened: Open, event: Any) -> None:
    stream = opened("alice")
    ack = await stream.ask(event)
    assert (ack["kind"], ack["state"]) == ("ack", "rejected")
    assert len(json.dumps(ack)) < 1000
    assert (await stream.ask(set_("1")))["state"] == "done"


async def test_what_comes_after_the_last_session_is_dropped(opened: Open) -> None:
    stream = opened("alice")
    attachment = stream.attached.pop("task-alice")
    stream.wire.send(set_("1"))
    await until_async(lambda: stream.wire._inbound.empty())
    stream.attached["task-alice"] = attachment
    assert (await stream.ask(set_("2")))["id"] == "2"
    assert len(stream.answers) == 1
