"""Request tasks from their input parts to the terminal."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from device_agent.network import Part
from device_agent.tasks.request_task import RequestTask
from device_agent.tasks.result_delivery import ResultDelivery
from device_agent.tasks.services import Services
from support.control_side import Fan, Relay
from support.fake_task_link import FakeTaskLink, start_of
from support.waiting import until_async

Ask = Callable[..., Any]


@pytest.fixture
def ask(services: Services, tmp_path: Path) -> Ask:
    """Carries out a request and returns the link that its answer went out on."""
    delivery = ResultDelivery(tmp_path / "requests", services.journal)

    async def ask(request: Any, *more: Part, sent_ms: float | None = 0.0) -> FakeTaskLink:
        link = FakeTaskLink(start_of(f"t{len(asked)}", "request", request, *more, sent_ms=sent_ms))
        asked.append(link)
        services.journal.begin_task(link.start, 0)
        await asyncio.wait_for(RequestTask(services, link, delivery).run(), 30)
        return link

    asked: list[FakeTaskLink] = []
    return ask


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (None, "the input part 'request' is missing"),
        ("{", "request: "),
        ({"op": "fly"}, "request: "),
        ({"op": "read", "devices": []}, "request: devices"),
        ({"op": "read", "more": 1}, "request: more"),
        ({"op": "history"}, "op: "),
    ],
)
async def test_a_wrong_request_is_rejected_with_its_reason(ask: Ask, request_: Any, message: str) -> None:
    link = await ask(request_)
    assert link.result["state"] == "rejected"
    assert link.result["error"]["code"] == "invalid_value"
    assert message in link.result["error"]["message"]
    [(state, error)] = link.terminals
    assert state == "failed"
    assert error.startswith("invalid_value: ")


async def test_a_part_that_came_twice_is_rejected(ask: Ask) -> None:
    link = await ask({"op": "read"}, Part("request", text="{}"))
    assert "came more than once" in link.result["error"]["message"]


async def test_all_readable_devices_are_read(ask: Ask) -> None:
    link = await ask({"op": "read"})
    devices = {reading["device"] for reading in link.result["readings"]}
    assert {"fan", "button"} <= devices
    assert "hidden" not in devices
    assert "hidden" not in {missing["device"] for missing in link.result.get("unavailable", [])}
    assert link.terminals == [("completed", "")]


async def test_a_hidden_device_and_one_that_is_not_there_are_told_alike(ask: Ask) -> None:
    messages = []
    for name in ("hidden", "nothing"):
        link = await ask({"op": "read", "devices": [name]})
        assert link.result["error"]["code"] == "unknown_device"
        messages.append(link.result["error"]["message"].replace(name, "?"))
    assert messages[0] == messages[1]


async def test_a_device_that_is_named_and_does_not_answer_fails_the_request(ask: Ask) -> None:
    Fan.broken = True
    link = await ask({"op": "read", "devices": ["fan", "button"]})
    assert link.result["state"] == "failed"
    assert [reading["device"] for reading in link.result["readings"]] == ["button"]
    assert link.result["error"]["code"] == "device_offline"
    everything = await ask({"op": "read"})
    assert everything.result["state"] == "done", "not asked for by name"
    assert link.result["unavailable"] == [{"device": "fan", "reason": link.result["error"]["message"]}]
    reasons = {missing["device"]: missing["reason"] for missing in everything.result["unavailable"]}
    assert reasons["fan"]
    assert not reasons.keys() & {reading["device"] for reading in everything.result["readings"]}


async def test_set_moves_and_stays_after_the_task(ask: Ask, services: Services) -> None:
    link = await ask({"op": "set", "device": "up", "values": {"on": True}})
    assert link.result["state"] == "done"
    assert link.result["ack"]["commanded"] == {"on": True}
    assert services.safe_states.away(["up"]) == ["up"]
    assert services.executor.leases.holder("up", services.clock.monotonic_s()) is None


async def test_a_dry_run_moves_nothing(ask: Ask) -> None:
    link = await ask({"op": "set", "device": "up", "values": {"on": True}, "dry_run": True})
    assert link.result["ack"]["dry_run"] is True
    assert Relay.told == []
    refused = await ask({"op": "do", "device": "up", "action": "explode", "dry_run": True})
    assert (refused.result["state"], refused.result["ack"]["error"]["code"]) == ("rejected", "invalid_value")


async def test_what_waited_out_an_outage_moves_nothing(ask: Ask) -> None:
    link = await ask({"op": "set", "device": "up", "values": {"on": True}}, sent_ms=-6000.0)
    assert link.result["error"]["code"] == "expired"
    assert Relay.told == []


async def test_without_the_networks_time_nothing_moves(ask: Ask) -> None:
    link = await ask({"op": "set", "device": "up", "values": {"on": True}}, sent_ms=None)
    assert link.result["error"]["code"] == "clock_unset"
    assert Relay.told == []


async def test_describe_leaves_out_what_is_hidden(ask: Ask) -> None:
    link = await ask({"op": "describe"})
    names = [device["device"] for device in link.result["devices"]]
    assert "fan" in names
    assert "hidden" not in names


async def test_stop_makes_all_safe(ask: Ask, services: Services) -> None:
    await ask({"op": "set", "device": "up", "values": {"on": True}})
    link = await ask({"op": "stop"})
    assert link.result["state"] == "done"
    assert services.safe_states.away(["up"]) == []
    refused = await ask({"op": "set", "device": "up", "values": {"on": True}})
    assert "emergency stop" in refused.result["error"]["message"]


async def test_a_file_is_refused_where_no_device_takes_bytes(ask: Ask) -> None:
    link = await ask({"op": "read"}, Part("file", text="x"))
    assert "there is no input 'file'" in link.result["error"]["message"]


@pytest.mark.parametrize(
    ("request_", "state"),
    [
        ({"op": "read", "devices": ["fan"]}, "failed"),
        ({"op": "do", "device": "up", "action": "pulse"}, "unknown"),
    ],
)
async def test_the_time_limit_ends_what_hangs(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request_: Any, state: str
) -> None:
    agent = services.config.agent.model_copy(update={"max_running_s": 0.4})
    services.executor.use_config(replace(services.config, agent=agent))
    release = asyncio.Event()
    device = services.devices[request_.get("device", "fan")]
    monkeypatch.setattr(device, "read_now", release.wait)
    monkeypatch.setattr(device, "do", lambda *_, **__: release.wait())
    link = FakeTaskLink(start_of("t1", "request", request_, sent_ms=0.0))
    services.journal.begin_task(link.start, 0)
    await asyncio.wait_for(RequestTask(services, link, ResultDelivery(tmp_path, services.journal)).run(), 30)
    assert link.result["op"] == request_["op"]
    assert link.result["state"] == state
    assert "within 0.3 s (by agent.max_running_s)" in link.result["error"]["message"]


async def test_long_work_is_reported_and_the_stream_ends_with_the_result(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("device_agent.tasks.progress.INTERVAL_S", 0.01)
    link = FakeTaskLink(start_of("t1", "request", {"op": "read", "devices": ["fan"]}, has_stream=True))
    services.journal.begin_task(link.start, 0)
    release = asyncio.Event()
    read_now = services.devices["fan"].read_now

    async def slowly() -> Any:
        await release.wait()
        return await read_now()

    monkeypatch.setattr(services.devices["fan"], "read_now", slowly)
    task = RequestTask(services, link, ResultDelivery(tmp_path, services.journal))
    work = asyncio.ensure_future(task.run())
    await until_async(lambda: link.sentences)
    assert link.sentences == ["reading"]
    release.set()
    await asyncio.wait_for(work, 30)
    stream = link.streams["_default"]
    assert stream.spec.stream_id == "t1-0"
    assert [event["message"] for event in stream.of("progress")] == ["reading", "done"]
    assert stream.closed == "ended"


async def test_a_request_goes_on_without_the_progress_stream_that_the_network_refuses(
    services: Services, tmp_path: Path
) -> None:
    link = FakeTaskLink(start_of("t1", "request", {"op": "read"}, has_stream=True))
    link.refuse_stream = "_default"
    services.journal.begin_task(link.start, 0)
    await asyncio.wait_for(RequestTask(services, link, ResultDelivery(tmp_path, services.journal)).run(), 30)
    assert link.terminals == [("completed", "")]


async def test_a_result_that_cannot_be_delivered_fails_the_task(services: Services, tmp_path: Path) -> None:
    link = FakeTaskLink(start_of("t1", "request", {"op": "read"}))
    link.refuse_artifact = "result"
    services.journal.begin_task(link.start, 0)
    await asyncio.wait_for(RequestTask(services, link, ResultDelivery(tmp_path, services.journal)).run(), 30)
    [(state, error)] = link.terminals
    assert state == "failed"
    assert "the result could not be delivered" in error
