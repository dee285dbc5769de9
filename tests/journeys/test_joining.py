"""Joining under trouble: nothing on the network ends the process; only a person's decision slows it down."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from device_agent.clock import SystemClock
from device_agent.network.blocks.joiner import JoinSettings
from device_agent.network.blocks.network import BlocksNetwork
from device_agent.network.connectivity import TIME_SAMPLE_MAX_AGE_S
from device_agent.testing.network import NetworkThread
from support.callers import question, result
from support.deployment import AGENT, World
from support.waiting import LIMIT_S, until


def fault(world: World, kind: str, path: str, **options: Any) -> None:
    world.net.call(lambda: world.net.net.add_fault(kind, path, **options))


def test_the_config_document_is_kept_for_a_start_without_it(
    new_world: Callable[..., World], alice: Any
) -> None:
    world = new_world()
    world.start()
    assert world.daemon.stop() == 0
    fault(world, "status", "/config.json", status=503)
    daemon = world.start()
    assert any(entry["event"] == "config_document_cached" for entry in daemon.events())
    world.net.call(world.net.net.heal)
    assert result(question(alice, {"op": "read", "devices": ["door"]}))["state"] == "done"
    daemon.stop()


def test_errors_of_every_step_of_joining_are_outlived(new_world: Callable[..., World], alice: Any) -> None:
    world = new_world()
    fault(world, "status", "/config.json", status=500, count=2)
    fault(world, "reset", "/api/v1/registry/*", count=2)
    fault(world, "status", "*/auth/agent/connect", status=503, count=2)
    fault(world, "status", "/v2/subscribe/*", status=502, body="<html>", count=2)
    world.start()
    world.net.call(world.net.net.heal)
    assert result(question(alice, {"op": "read", "devices": ["door"]}))["state"] == "done"
    world.daemon.stop()


def test_forced_offline_neither_ends_the_process_nor_makes_it_knock(new_world: Callable[..., World]) -> None:
    world = new_world()
    world.start()
    world.daemon.stop()
    net = world.net.net
    world.net.call(net.force_offline, AGENT)
    daemon = world.start(joined=False)
    daemon.wait_logged("not_allowed")
    until(lambda: daemon.device("climate")["state"] == "online", "sampling goes on")
    assert "connect" in daemon.ask("status")["link"]["trouble"]
    assert daemon.ask("status")["link"]["state"] == "forced offline"
    knocks = [r for r in net.requests() if r.path.endswith("/auth/agent/connect") and r.status == 403]
    assert len(knocks) == 1
    assert daemon.stop() == 0
    world.net.call(net.allow_online, AGENT)


class _Idle:
    """A runtime without tasks."""

    def load_now(self) -> tuple[int, int]:
        return 0, 0

    def resumable(self) -> list[Any]:
        return []

    async def remembered(self) -> None: ...


def idle_network(net: NetworkThread, folder: Path) -> BlocksNetwork:
    at = net.net.links["main"].addresses
    settings = JoinSettings(
        AGENT,
        lambda: "bk_device",
        cdm_url=at["cdm_url"],
        pubnub_origin=at["pubnub_origin"],
        pubnub_tls=False,
    )
    return BlocksNetwork(settings, _Idle(), SystemClock(), folder)  # type: ignore[arg-type]


async def test_a_fault_of_ours_while_joining_silences_no_stream(net: NetworkThread, tmp_path: Path) -> None:
    """A renewal that fails in a way nobody has thought of is tried again; what publishes goes on."""
    network = idle_network(net, tmp_path)
    join, tries = network.joiner.join, []

    async def fails_once() -> None:
        tries.append(1)
        if len(tries) == 1:
            raise RecursionError("an answer that is nested too deeply")
        await join()

    network.joiner.join = fails_once  # type: ignore[method-assign]
    writer = network.background.spawn("writer", asyncio.sleep(3600))
    running = asyncio.ensure_future(network.run())
    try:
        async with asyncio.timeout(LIMIT_S):
            await network.membership.until_joined()
        assert not writer.done()
        assert not running.done()
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def test_an_idle_agent_asks_for_the_time_before_its_own_clock_has_drifted(
    net: NetworkThread, tmp_path: Path
) -> None:
    """Days without a task: a crystal goes wrong by seconds, and by it a command's age would be judged."""
    network = idle_network(net, tmp_path)
    running = asyncio.ensure_future(network.run())
    try:
        async with asyncio.timeout(LIMIT_S):
            await network.membership.until_joined()
            await network.connectivity.time_known.wait()
            true_ms = network.connectivity.server_ms()
            assert true_ms is not None
            long_ago_s = network.clock.monotonic_s() - TIME_SAMPLE_MAX_AGE_S - 1
            wrong_ms = true_ms - (TIME_SAMPLE_MAX_AGE_S + 1) * 1000 + 20_000
            network.connectivity.time_sample(wrong_ms, long_ago_s, long_ago_s)
            while (network.connectivity.server_ms() or 0) > true_ms + 15_000:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.05)
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
