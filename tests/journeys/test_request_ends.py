"""Requests whose driver hangs, or whose daemon dies: each has its end."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from device_agent.messages.requests import PROGRESS_STREAM
from device_agent.network.blocks.wire import stream_channel
from device_agent.store.history.history_block import HistoryBlock, pack
from device_agent.store.history.history_file import HistoryFile
from device_agent.testing.network import NetworkThread
from support.callers import question, result, stream
from support.deployment import AGENT, CONFIG, World
from support.waiting import LIMIT_S, until


def parts(body: Any, *more: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"partId": "request", "contentType": "application/json", "text": json.dumps(body)}, *more]


def published(world: World, session: Any, kind: str) -> list[dict[str, Any]]:
    channel = world.net.net.task(session.task_id).channel
    return [r.body for r in world.net.net.publishes(channel) if r.body["type"] == kind]


def left_behind(world: World) -> list[Path]:
    return list((world.folder / "state" / "requests").glob("*"))


def test_a_hung_driver_meets_the_time_limit(new_world: Callable[..., World], alice: Any) -> None:
    """W18: the task ends by agent.max_running_s although the bus does not answer."""
    config = CONFIG.replace("concurrency = {concurrency}", "concurrency = {concurrency}\nmax_running_s = 4")
    config = config.replace('device = "/dev/i2c-1"\ntimeout_s = 0.5', 'device = "/dev/i2c-1"\ntimeout_s = 30')
    world = new_world(config=config)
    world.start()
    world.board.do("fault", "i2c1", "stuck")
    session = question(alice, {"op": "read", "devices": ["climate"]})
    world.board.do("heal")
    assert session.terminal["state"] == "failed"
    assert "reading" in [event.get("message") for event in published(world, session, "progress")]
    assert "within 3 s" in result(session)["error"]["message"]


def fill(path: Path) -> None:
    """A record of the last two hours, a reading every second: more than goes out inline."""
    path.parent.mkdir(parents=True, mode=0o700)
    file = HistoryFile(path, keep_ms=86_400_000, max_bytes=64_000_000)
    first_ms = time.time_ns() // 1_000_000 - 7_200_000
    at = [first_ms + 1000 * n for n in range(7000)]
    file.append(
        [pack(HistoryBlock("climate", 0, ("temperature",), at, [[20 + n % 60 / 10 for n in range(7000)]]))]
    )
    file.close()


def test_a_large_answer_survives_kill_9(
    net: NetworkThread, tmp_path: Path, new_world: Callable[..., World], alice: Any
) -> None:
    """W13: the daemon dies while the upload is refused; the next one delivers it, once, and ends the task."""
    fill(tmp_path / "state" / "history.db")
    world = new_world()
    daemon = world.start()
    faults = world.net.net.faults
    fault = world.net.call(lambda: faults.add("status", "/_storage/*", method="POST"))
    session = alice.send_message(
        agent_name=AGENT,
        request_parts=parts({"op": "history", "devices": ["climate"], "format": "csv"}),
    )
    until(lambda: left_behind(world), "the answer on the disk")
    until(lambda: fault.hits, "an upload that was refused")
    daemon.kill()
    world.net.call(lambda: faults.heal(fault.fault_id))
    world.start()
    assert session.wait_for_terminal(LIMIT_S)["state"] == "completed"
    session = alice.connect(session.task_id)
    data = [session.download_artifact(a).data for a in session.list_artifacts()]
    assert max(len(one) for one in data) > 7000 * 20
    session.close()
    outputs = [a["outputId"] for a in published(world, session, "artifact")]
    assert sorted(outputs) == ["history", "result"]
    until(lambda: left_behind(world) == [], "nothing left on the disk")


def test_the_progress_stream_of_a_cancelled_request_ends(new_world: Callable[..., World], alice: Any) -> None:
    config = CONFIG.replace('device = "/dev/i2c-1"\ntimeout_s = 0.5', 'device = "/dev/i2c-1"\ntimeout_s = 30')
    world = new_world(config=config)
    world.start()
    world.board.do("fault", "i2c1", "stuck")
    body = {"op": "read", "devices": ["climate"]}
    session = alice.send_message(agent_name=AGENT, request_parts=parts(body), stream=True)
    stream(session, PROGRESS_STREAM).wait("progress", message="reading")
    session.cancel()
    channel = stream_channel(AGENT, f"{session.task_id}-0")
    said = lambda: [r.body["type"] for r in world.net.net.publishes(channel)]  # noqa: E731
    until(lambda: "stream_end" in said(), f"the end of the stream after {said()}")
