"""A pipe session from its request to its terminal: streams, session commands, ends and restarts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from device_agent.messages.commands import Pause, Rate, Resume, Select
from device_agent.network import Caller, Part, StartTask
from device_agent.tasks import pipe_session
from device_agent.tasks.pipe_session import PipeSession, SavedSession, SessionState
from device_agent.tasks.services import Services
from device_agent.tasks.session_stream import SharedSessionStreams
from support.fake_task_link import FakeStream, FakeTaskLink, start_of
from support.waiting import until_async

BOB = Caller("org_b", "bob")


@asynccontextmanager
async def running(
    services: Services,
    request: Any = None,
    *,
    saved: SavedSession | None = None,
    shared: SharedSessionStreams | None = None,
    start: StartTask | None = None,
) -> AsyncIterator[tuple[PipeSession, FakeTaskLink]]:
    """A session with all its streams open; cancelled by its caller in the end."""
    start = start or start_of("t1", "pipe", request, duration_min=10)
    link = FakeTaskLink(start)
    session = PipeSession(services, link, shared or SharedSessionStreams(), saved)
    work = asyncio.ensure_future(session.run())
    try:
        await until_async(lambda: session.state is not SessionState.OPENING)
        yield session, link
    finally:
        session.end("cancel")
        await asyncio.wait_for(work, 10)


async def failed(services: Services, request: Any, *more: Part) -> str:
    """Why a session with this request does not begin."""
    link = FakeTaskLink(start_of("t1", "pipe", request, *more))
    await asyncio.wait_for(PipeSession(services, link, SharedSessionStreams()).run(), 10)
    [(state, error)] = link.terminals
    assert state == "failed"
    return error


async def control_answer(stream: FakeStream, command: dict[str, Any]) -> dict[str, Any]:
    """What the stream answers to one session command."""
    known = len(stream.of("control", about=command["kind"]))
    stream.send(command)
    await until_async(lambda: len(stream.of("control", about=command["kind"])) > known)
    return stream.of("control", about=command["kind"])[-1]


# -- which streams it opens -----------------------------------------------------------------------------


async def test_without_a_request_all_readable_streams_open(
    services: Services,
) -> None:
    async with running(services) as (session, link):
        assert list(link.streams) == ["telemetry", "control", "orders"]
        assert session.state is SessionState.RUNNING
        [about] = link.streams["control"].of("control")
        assert about["devices"] == ["fan", "up"], "the hidden device is left out"
        assert about["streams"] == ["telemetry", "control", "orders"]
        assert link.streams["control"].spec.stream_id == "t1-2"
        assert link.streams["telemetry"].spec.stream_id == "telemetry"


async def test_a_request_for_devices_opens_what_carries_them_and_selects_them(services: Services) -> None:
    async with running(services, {"devices": ["fan"]}) as (_, link):
        assert list(link.streams) == ["control"]
        [about] = link.streams["control"].of("control")
        assert about["devices"] == ["fan"]


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ({"streams": ["nothing"]}, "invalid_value: request.streams: there is no stream 'nothing'"),
        ({"devices": ["nothing"]}, "unknown_device: request.devices: there is no device 'nothing'"),
        ({"devices": ["hidden"]}, "unknown_device: request.devices: there is no device 'hidden'"),
        ({"streams": ["control"], "devices": ["button"]}, "unknown_device: no stream of this session"),
        ({"every_s": 0}, "invalid_value: request: every_s"),
        ({"more": 1}, "invalid_value: request: more"),
        ("no JSON", "invalid_value: request: "),
    ],
)
async def test_a_wrong_request_fails_with_its_reason(services: Services, request_: Any, error: str) -> None:
    assert error in await failed(services, request_)


async def test_another_input_part_is_refused(services: Services) -> None:
    assert "there is no input 'file'" in await failed(services, None, Part("file", text="x"))


async def test_a_stream_that_the_network_refuses_fails_the_session(services: Services) -> None:
    link = FakeTaskLink(start_of("t1", "pipe"))
    link.refuse_stream = "orders"
    await asyncio.wait_for(PipeSession(services, link, SharedSessionStreams()).run(), 10)
    assert link.terminals == [("failed", "internal: HTTP 403")]
    assert link.streams["control"].closed == "ended"


# -- ends -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "terminal"),
    [
        ("cancel", ("canceled", "")),
        ("terminate", ("canceled", "terminated")),
        ("expire", ("completed", "duration_expired")),
    ],
)
async def test_each_end_has_its_terminal(services: Services, how: Any, terminal: tuple[str, str]) -> None:
    async with running(services) as (session, link):
        session.end(how)
        session.end("cancel")
        await until_async(lambda: link.terminals)
        assert link.terminals == [terminal], "the first end counts"
        assert session.state is SessionState.ENDED
        assert {stream.closed for stream in link.streams.values()} == {"ended"}


async def test_its_time_runs_out_by_the_networks_clock(services: Services) -> None:
    start = start_of("t1", "pipe", expires_at_ms=50)
    async with running(services, start=start) as (_, link):
        assert link.terminals == []
        link.time_ms = 50
        await until_async(lambda: link.terminals)
        assert link.terminals == [("completed", "duration_expired")]


async def test_its_time_runs_out_while_no_stream_opens(services: Services) -> None:
    """Without a network there is no clock but ours."""
    link = FakeTaskLink(start_of("t1", "pipe", duration_min=1))
    link.time_ms = None
    link.reachable.clear()
    session = PipeSession(services, link, SharedSessionStreams())
    assert session.remaining_s() == 60
    services.clock.step(61)  # type: ignore[attr-defined]
    await asyncio.wait_for(session.run(), 10)
    assert link.terminals == [("completed", "duration_expired")]
    assert link.streams == {}


async def test_the_end_makes_safe_before_the_caller_is_told(services: Services) -> None:
    async with running(services) as (session, link):
        control = link.streams["control"]
        control.send({"kind": "set", "id": "1", "device": "up", "values": {"on": True}})
        await until_async(lambda: control.of("ack", id="1"))
        assert control.of("ack")[0]["state"] == "done"
        assert services.safe_states.away(["up"]) == ["up"]
        session.end("cancel")
        await until_async(lambda: link.terminals)
        assert services.safe_states.away(["up"]) == []


# -- session commands -----------------------------------------------------------------------------------


async def test_pause_holds_readings_and_resume_lets_them_go(services: Services) -> None:
    async with running(services) as (_, link):
        control = link.streams["control"]
        await until_async(lambda: control.of("reading", device="fan"))
        assert (await control_answer(control, {"kind": "pause"}))["ok"] is True
        known = len(control.of("reading"))
        await services.devices["fan"].read_now()
        services.subscriptions.on_readings(
            [(await services.devices["fan"].read_now())._replace(at_once=True)]
        )
        assert len(control.of("reading")) == known
        assert (await control_answer(control, {"kind": "resume"}))["ok"] is True
        services.subscriptions.on_readings(
            [(await services.devices["fan"].read_now())._replace(at_once=True)]
        )
        assert len(control.of("reading")) > known


async def test_select_and_rate_are_refused_for_devices_that_no_own_stream_carries(services: Services) -> None:
    async with running(services) as (session, link):
        control = link.streams["control"]
        for command in ({"kind": "select", "devices": ["button"]}, {"kind": "rate", "device": "nothing"}):
            answer = await control_answer(control, command)
            assert (answer["ok"], answer["error"]["code"]) == (False, "unknown_device")
        assert (await control_answer(control, {"kind": "select", "devices": []}))["ok"] is True
        assert session.streams["control"].subscription is not None


async def test_rate_asks_the_device_for_readings_that_often(services: Services) -> None:
    usual_s = services.devices["up"].effective_period_s
    async with running(services) as (_, link):
        answer = await control_answer(
            link.streams["control"], {"kind": "rate", "device": "up", "every_s": 0.5}
        )
        assert answer["ok"] is True
        assert services.devices["up"].effective_period_s == 0.5
    assert services.devices["up"].effective_period_s == usual_s, "withdrawn with the session"


async def test_a_request_for_a_rate_is_no_command_of_the_caller(services: Services) -> None:
    async with running(services, {"every_s": 0.25}) as (_, link):
        assert services.devices["up"].effective_period_s == 0.25
        assert link.streams["control"].of("control", about="rate") == []


async def test_replay_sends_again_what_is_kept_and_says_from_where(services: Services) -> None:
    async with running(services) as (_, link):
        control = link.streams["control"]
        assert control.events[0]["seq"] == 1
        assert (await control_answer(control, {"kind": "replay", "from_seq": 1}))["from_seq"] == 1
        await until_async(lambda: control.of("control", about="session", late=True))
        refused = await control_answer(control, {"kind": "replay", "from_seq": 10_000})
        assert (refused["ok"], refused["error"]["code"]) == (False, "invalid_value")


async def test_answers_to_an_inbound_stream_go_out_on_another(services: Services) -> None:
    async with running(services, {"streams": ["orders", "control"]}) as (_, link):
        orders, control = link.streams["orders"], link.streams["control"]
        orders.send({"kind": "pause"})
        await until_async(lambda: control.of("control", about="pause", ok=True))
        orders.send({"kind": "replay", "from_seq": 1})
        await until_async(lambda: control.of("control", about="replay", ok=False))
        orders.send({"kind": "set", "id": "7", "device": "up", "values": {"on": True}})
        await until_async(lambda: control.of("ack", id="7", state="done"))


async def test_a_shared_stream_takes_no_session_commands(services: Services) -> None:
    async with running(services) as (session, _):
        with pytest.raises(Exception, match="one writer for all its callers"):
            session.on_command(session.streams["telemetry"], Pause(kind="pause"))


# -- a later process ------------------------------------------------------------------------------------


def test_of_commands_about_the_same_the_last_is_saved() -> None:
    saved = SavedSession()
    saved.add(Pause(kind="pause"))
    saved.add(Select(kind="select", devices=["fan"]))
    saved.add(Rate(kind="rate", device="fan", every_s=2, on_change=True))
    saved.add(Rate(kind="rate", every_s=5))
    saved.add(Rate(kind="rate", device="fan", every_s=1))
    saved.add(Resume(kind="resume"))
    assert list(saved.commands.values()) == [
        {"kind": "select", "devices": ["fan"]},
        {"kind": "rate", "every_s": 5},
        {"kind": "rate", "device": "fan", "every_s": 1, "on_change": True},
        {"kind": "resume"},
    ]
    assert SavedSession.from_journal(saved.to_journal()) == saved


async def test_a_session_continues_with_its_streams_and_commands(services: Services) -> None:
    saved = SavedSession(["telemetry", "control"], {"select": {"kind": "select", "devices": ["fan", "gone"]}})
    async with running(services, saved=saved) as (_, link):
        assert link.announced == {"telemetry": True, "control": True, "orders": False}
        await until_async(lambda: link.streams["control"].of("reading", device="fan"))
        assert link.streams["control"].of("control") == [], "the caller knows the stream"
        assert link.streams["control"].of("reading", device="up") == []
    assert saved.announced == ["telemetry", "control", "orders"]


async def test_many_session_commands_are_written_down_seldom(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may only read costs no disk; what was asked last is written when the process ends."""
    monkeypatch.setattr(pipe_session, "SAVES", (3, 0.0))
    written: list[Any] = []
    monkeypatch.setattr(services.journal, "note_session", lambda task, saved: written.append(saved["words"]))
    async with running(services) as (session, _):
        begun = len(written)
        for every_s in range(1, 201):
            session.on_command(session.streams["control"], Rate(kind="rate", every_s=every_s))
        assert len(written) == begun + 3
        await session.pause()
        assert written[-1]["rate "]["every_s"] == 200


async def test_readings_are_kept_from_the_start_where_the_network_is_away(services: Services) -> None:
    link = FakeTaskLink(start_of("t1", "pipe", {"streams": ["control"]}))
    link.reachable.clear()
    session = PipeSession(services, link, SharedSessionStreams(), SavedSession(["control"]))
    work = asyncio.ensure_future(session.run())
    await until_async(lambda: session.streams)
    services.subscriptions.on_readings([(await services.devices["fan"].read_now())._replace(at_once=True)])
    link.reachable.set()
    await until_async(lambda: session.state is SessionState.RUNNING)
    assert link.streams["control"].of("reading", device="fan")
    work.cancel()
    await asyncio.wait([work])
    await session.pause()
    assert session.state is SessionState.PAUSED
    assert link.streams["control"].closed == "closed", "the caller is not told of an end"
    assert link.terminals == []


# -- rights and reloads ---------------------------------------------------------------------------------


async def test_a_device_that_may_be_read_no_more_leaves_the_sessions_own_streams(services: Services) -> None:
    start = start_of("t1", "pipe", caller=BOB, duration_min=10)
    async with running(services, start=start) as (session, _):
        assert list(session.streams["control"].scope.devices) == ["up", "fan", "hidden"]
        access = services.config.access.model_copy(update={"read": ("user:alice",)})
        assert not session._ended.done()
        session.judge_again(access)
        assert list(session.streams["control"].scope.devices) == ["hidden"]
        assert session._ended.result() == "terminate", "the shared stream carries the button"


async def test_a_replaced_device_goes_on_under_its_name(services: Services) -> None:
    async with running(services) as (session, link):
        session.replace("fan", None)
        assert "fan" not in session.streams["control"].scope.devices
        known = len(link.streams["control"].of("reading", device="fan"))
        services.subscriptions.on_readings(
            [(await services.devices["fan"].read_now())._replace(at_once=True)]
        )
        assert len(link.streams["control"].of("reading", device="fan")) == known
        link.streams["control"].link_silent_s = 4
        assert session.overdue(["up", "fan"]) == {"up": "no link for 3 s"}


async def test_a_silent_caller_is_one_who_sent_nothing_on_any_stream(services: Services) -> None:
    async with running(services) as (session, link):
        services.clock.step(60)  # type: ignore[attr-defined]
        assert session.overdue(["up", "fan"]) == {}
        services.clock.step(1)  # type: ignore[attr-defined]
        silent = "its caller has said nothing for 60 s"
        assert session.overdue(["up", "fan"]) == {"up": silent, "fan": silent}
        link.streams["orders"].send({"kind": "pause"})
        await until_async(lambda: session.overdue(["up", "fan"]) == {})


@pytest.mark.parametrize(
    ("stream", "silent_s", "reasons"),
    [
        ("control", 3.1, {"up": "no link for 3 s", "fan": "no link for 3 s"}),
        ("orders", 2.1, {"up": "no link for 2 s"}),
        ("telemetry", 2.1, {"up": "no link for 2 s"}),
    ],
)
async def test_what_counts_is_the_way_of_the_stream_that_drives_and_of_its_answers(
    services: Services, stream: str, silent_s: float, reasons: dict[str, str]
) -> None:
    request = {"streams": ["telemetry", "orders", "control"]}
    async with running(services, request) as (session, link):
        await until_async(lambda: len(link.streams) == 3)
        assert session.overdue(["up", "fan"]) == {}
        link.streams[stream].link_silent_s = silent_s
        assert session.overdue(["up", "fan"]) == reasons
        assert session.overdue([]) == {}
