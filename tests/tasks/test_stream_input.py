"""What callers send on a stream: parsed, carried out with the right sender, answered."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from device_agent.commands.authorization import Actor
from device_agent.errors import Rejected
from device_agent.messages.commands import Pause, SessionCommand, parse
from device_agent.messages.events import EventDraft
from device_agent.network import Caller, StreamSpec
from device_agent.tasks import stream_input
from device_agent.tasks.services import Services
from device_agent.tasks.stream_input import Attachment, StreamInput
from device_agent.tasks.stream_scope import StreamScope
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
        self.input = StreamInput(services, scope, self.attached, self.answer, self.on_session_command)
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


async def test_a_sign_of_life_is_of_the_caller_it_names_or_of_all(opened: Open, services: Services) -> None:
    stream = opened("alice", "bob")
    now_s = services.clock.monotonic_s()
    await stream.ask({"kind": "pause"}, sender="bob")
    assert {id_: a.last_inbound_s for id_, a in stream.attached.items()} == {
        "task-alice": 0.0,
        "task-bob": now_s,
    }
    await stream.ask({"kind": "pause"}, sender="somebody")
    assert stream.attached["task-alice"].last_inbound_s == now_s


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


async def test_more_commands_than_fit_wait_in_the_network(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_input, "COMMANDS_AT_ONCE", 2)
    stream = opened("alice")
    Relay.hold.clear()
    for number in range(4):
        stream.wire.send(set_(str(number)))
    assert await asyncio.to_thread(Relay.begun.wait, 10)
    await until_async(lambda: stream.wire._inbound.qsize() == 1)
    Relay.hold.set()
    await until_async(lambda: len(stream.answers) == 4)
    assert [a["id"] for a in stream.answers] == ["0", "1", "2", "3"], "one after the other, in their order"


async def test_what_comes_after_the_last_session_is_dropped(opened: Open) -> None:
    stream = opened("alice")
    attachment = stream.attached.pop("task-alice")
    stream.wire.send(set_("1"))
    await until_async(lambda: stream.wire._inbound.empty())
    stream.attached["task-alice"] = attachment
    assert (await stream.ask(set_("2")))["id"] == "2"
    assert len(stream.answers) == 1
