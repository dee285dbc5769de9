"""The stand-in in a thread and as a process; the HTTP admin surface; the clients of pubnub itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import warnings
from typing import Any

import aiohttp
import pytest

from device_agent.testing.network import AdminClient, DevNetwork, NetworkProcess, NetworkThread, serve
from device_agent.testing.network.admin import METHODS, Admin
from device_agent.testing.network.hosting import NOTICE
from device_agent.testing.network.sdk import sdk_environment
from device_agent.testing.network.settings import KEY_SETS
from support.network_peer import Peer, held

LIMIT_S = 15.0


def test_every_admin_method_exists() -> None:
    assert {m for m in METHODS if not callable(getattr(Admin, m, None))} == set()


async def test_admin_over_http() -> None:
    async with DevNetwork() as net, Peer(net, {"a": 3}, uuid="me") as peer:
        admin = AdminClient(net.admin_url)

        async def call(method: str, **arguments: Any) -> Any:
            return await asyncio.to_thread(admin.call, method, **arguments)

        async def view(name: str, **query: Any) -> Any:
            return await asyncio.to_thread(admin.view, name, **query)

        assert (await view("addresses"))["cdm_url"] == net.cdm_url
        assert (await call("register", agent="x", listing="public"))["agentName"] == "x"
        fault = await call("add_fault", kind="status", path="/publish/*", status=500, count=1)
        assert [f["fault_id"] for f in await view("faults")] == [fault["fault_id"]]
        assert (await peer.publish("a", {"n": 1}))[0] == 500
        assert (await peer.publish("a", {"n": 2}))[0] == 200
        (record,) = await view("publishes", channel="a")
        assert (record["body"], record["token_kind"], record["uuid"]) == ({"n": 2}, "write", "me")
        assert await view("publishes", channel="a", after=record["timetoken"]) == []
        assert [r["status"] for r in await view("requests", path="/publish/*")] == [500, 200]
        await call("send_control", agent="x", message={"type": "T"}, meta={"instance": "AG"})
        assert net.publishes(net.agent("x").control_channel)[0].meta == {"instance": "AG"}
        await peer.presence("a", "heartbeat")
        assert (await view("presence"))["a"][0]["uuid"] == "me"
        await call("set_token_ttl", kind="write", ttl_s=5)
        await call("set", hold_s=0.01)
        assert (await view("settings"))["lifetimes"]["write"] == 5
        assert (await peer.subscribe("a", tt=record["timetoken"]))[1] == []
        assert (await view("tokens"))[-1]["kind"] == "write"
        assert await call("revoke_tokens", kind="write") == 1
        assert (await peer.publish("a", 3))[0] == 403
        link = await call("open_link", name="other", rtt_ms=1)
        assert link["port"] != net.port
        await call("refuse", link="other")
        await net.wait_for(lambda: net.links["other"].listening is None)
        await call("accept", link="other")
        assert (await view("tasks"), [a["agentName"] for a in await view("agents")]) == ([], ["x"])
        for wrong in (
            {"method": "stop"},
            {"method": "add_fault", "kind": "x"},
            {"method": "agent", "agent": "no"},
        ):
            with pytest.raises(ValueError, match="error"):
                await call(**wrong)
        with pytest.raises(ValueError, match="no setting"):
            await call("set", nonsense=1)
        with pytest.raises(ValueError, match="no view"):
            await view("nonsense")


def test_process_tells_its_addresses_and_ends_with_its_input() -> None:
    with NetworkProcess("--auto-register", "--hold-s", "1") as net:
        assert net.addresses["notice"] == NOTICE
        assert net.view("addresses")["port"] == net.port
        assert net.view("settings")["auto_register"] is True
        assert net.cdm_url.startswith(net.api_base_url)
        assert net.pubnub_origin == f"127.0.0.1:{net.port}"
        pid = net.pid
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_process_ends_at_sigterm() -> None:
    command = [sys.executable, "-m", "device_agent.testing.network"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 0


def test_thread_can_be_called_from_outside() -> None:
    with NetworkThread() as host:
        host.call(host.net.register, "x")
        assert AdminClient(host.net.admin_url).view("agents")[0]["agentName"] == "x"
        assert host.run(host.net.wait_for(lambda: 5)) == 5


async def test_serve_calls_ready_and_ends_when_cancelled() -> None:
    ready: asyncio.Future[dict[str, str | int]] = asyncio.get_running_loop().create_future()
    task = asyncio.ensure_future(serve(0, ready=ready.set_result))
    addresses = await asyncio.wait_for(ready, LIMIT_S)
    assert addresses["notice"] == NOTICE
    admin = AdminClient(str(addresses["admin_url"]))
    assert (await asyncio.to_thread(admin.view, "settings"))["auto_register"] is True
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_importing_the_package_loads_no_server() -> None:
    code = "import sys, device_agent.testing.network as n; print('aiohttp' in sys.modules, n.__all__[1])"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    out, _ = await asyncio.wait_for(process.communicate(), LIMIT_S)
    assert out.decode().split() == ["False", "DevNetwork"]


@pytest.fixture
def pointed(monkeypatch: pytest.MonkeyPatch) -> Any:
    def point(net: DevNetwork, channel: str) -> Any:
        from pubnub.pnconfiguration import PNConfiguration

        for name, value in sdk_environment(net.cdm_url, net.pubnub_origin).items():
            monkeypatch.setenv(name, value)
        config = PNConfiguration()
        config.publish_key, config.subscribe_key = KEY_SETS["playground"]
        config.user_id = "me"
        config.enable_subscribe = False
        return config, net.tokens.issue("write", "playground", {channel: 3}, 60).token

    return point


@pytest.mark.filterwarnings("ignore:Mutable config:DeprecationWarning", "ignore::ResourceWarning")
async def test_blocking_pubnub_client_is_redirected_by_environment(pointed: Any) -> None:
    async with DevNetwork() as net:
        config, token = pointed(net, "a")
        from pubnub.pubnub import PubNub

        def work() -> Any:
            client = PubNub(config)
            client.set_token(token)
            client.publish().channel("a").message({"n": 1}).meta({"m": 1}).use_post(True).sync()
            client.publish().channel("a").message({"n": 2}).sync()
            page = client.fetch_messages().channels(["a"]).include_meta(True).sync()
            now = client.time().sync()
            client.get_request_handler().close()
            return [(m.message, m.meta) for m in page.result.channels["a"]], int(now.result)

        messages, now = await asyncio.to_thread(work)
        assert messages == [({"n": 1}, {"m": 1}), ({"n": 2}, "")]
        assert now > 10**16


@pytest.mark.filterwarnings("ignore:Mutable config:DeprecationWarning", "ignore::ResourceWarning")
async def test_asyncio_pubnub_client_is_redirected_by_environment(pointed: Any) -> None:
    async with DevNetwork() as net:
        config, token = pointed(net, "a")
        from pubnub.pubnub_asyncio import PubNubAsyncio

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            client = PubNubAsyncio(config)
            client.set_token(token)
            sent = await client.publish().channel("a").message("hello").use_post(True).result()
            assert int(sent.timetoken) > 10**16
            now = await client.here_now().channels("a").result()
            assert now.total_occupancy == 0
            await client.stop()
        assert [r.body for r in net.publishes("a")] == ["hello"]


async def test_stopping_leaves_no_connection_open() -> None:
    """Neither a held request, nor an idle connection, nor one that was accepted in the last moment."""
    async with DevNetwork() as net, Peer(net, {"a": 3}) as peer:
        waiting = await held(net, peer.subscribe("a", tt=1000))
        readers = [(await asyncio.open_connection("127.0.0.1", net.port)) for _ in range(5)]
        late = [asyncio.ensure_future(asyncio.open_connection("127.0.0.1", net.port)) for _ in range(20)]
        await asyncio.sleep(0)
        await net.stop()
        with pytest.raises(aiohttp.ClientError):
            await waiting
        done = await asyncio.gather(*late, return_exceptions=True)
        readers += [pair for pair in done if not isinstance(pair, BaseException)]
        for reader, writer in readers:
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(1), LIMIT_S) == b""
            writer.close()
