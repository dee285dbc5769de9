"""The official package's own client, unmodified, at `device-agent mcp`; the daemon and the board are real."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from device_agent.testing.network import NetworkThread
from support.deployment import CONFIG, World
from support.mosquitto import free_port
from support.waiting import until

mcp = pytest.importorskip("mcp", reason="the extra is not installed")

RULES = """
[access]
drive = ["local:mcp"]
"""


@pytest.fixture(scope="module")
def world(net: NetworkThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    config = CONFIG.partition("[access]")[0] + RULES
    with World(tmp_path_factory.mktemp("mcp"), net, config=config) as made:
        made.start()
        yield made


def door(world: World, *words: str) -> list[str]:
    return [sys.executable, "-m", "device_agent", "--config", str(world.config), "mcp", *words]


@asynccontextmanager
async def assistant(world: World, name: str = "greenhouse-helper") -> Any:
    """The client over standard input and output."""
    command, *args = door(world)
    server = mcp.StdioServerParameters(command=command, args=args, env=dict(os.environ))
    info = mcp.types.Implementation(name=name, version="1")
    async with mcp.Client(server, client_info=info) as client:
        yield client


async def say(client: Any, tool: str, **arguments: Any) -> tuple[str, bool]:
    """The text of a tool's answer, and whether it is a refusal."""
    answer = await client.call_tool(tool, arguments)
    return "\n".join(part.text for part in answer.content if part.type == "text"), bool(answer.is_error)


def id_in(text: str) -> str:
    found = re.search(r"mcp-[0-9a-f]{12}", text)
    assert found is not None, text
    return found[0]


async def test_an_assistant_finds_out_what_there_is(world: World) -> None:
    async with assistant(world) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {"describe", "read", "set", "do", "history", "stop"}
        said, refused = await say(client, "describe")
        assert not refused
        lines = {line.partition(" ")[0]: line for line in said.splitlines()}
        assert lines["climate"] == "climate online: temperature Cel, pressure hPa, humidity %"
        assert lines["valve"].startswith("valve online: on boolean set safe=false; do pulse(for_s)")
        assert max(map(len, lines.values())) <= 240, "60 tokens of four characters"
        reading = json.loads((await say(client, "read", device="climate"))[0])
        assert set(reading["values"]) == {"temperature", "pressure", "humidity"}
        about = (await client.read_resource("device-agent://devices/scale")).contents[0].text
        assert {point["name"] for point in json.loads(about)["points"]} == {"weight", "setpoint"}
        said, refused = await say(client, "read", device="cellar")
        assert refused
        assert "unknown_device: there is no device 'cellar'" in said


async def test_a_call_that_is_repeated_moves_once(world: World) -> None:
    async with assistant(world) as client:
        said, refused = await say(client, "set", device="valve", values={"on": True})
        assert refused
        assert "nothing moved" in said
        assert world.board.levels(27)[-1] == 1, "active low: off"
        move = {"device": "valve", "values": {"on": True}, "id": id_in(said)}
        said, refused = await say(client, "set", **{**move, "dry_run": True})
        assert not refused
        assert json.loads(said.partition("\n")[0])["dry_run"] is True
        assert world.board.levels(27)[-1] == 1
        said, refused = await say(client, "set", **move)
        ack = json.loads(said.partition("\n")[0])
        assert (refused, ack["state"], ack["applied"]) == (False, "done", {"on": True})
        moved = world.board.levels(27)
        assert moved[-1] == 0
        again = json.loads((await say(client, "set", **move))[0].partition("\n")[0])
        assert again["repeated"] is True
        assert world.board.levels(27) == moved
        off = {"device": "valve", "values": {"on": False}, "id": id_in(said)}
        assert not (await say(client, "set", **off))[1]
    who = {row["who"] for row in world.daemon.ask("journal") if row["device"] == "valve"}
    assert {name.partition(" ")[0] for name in who} == {"local:mcp/greenhouse-helper"}


async def test_a_refusal_names_its_rule(world: World) -> None:
    async with assistant(world) as client:
        fresh = id_in((await say(client, "describe"))[0])
        said, refused = await say(client, "set", device="scale", values={"setpoint": 900}, id=fresh)
        assert refused
        assert "out_of_range: nothing moved: scale.setpoint = 900 is outside 0 to 500 g" in said
        said, refused = await say(
            client, "do", device="valve", action="fly", id=id_in(said.split("next id")[1])
        )
        assert refused
        assert "fly" in said


async def test_the_record_as_a_table_and_as_a_picture(world: World) -> None:
    async with assistant(world) as client:
        said, refused = await say(client, "history", device="climate", hours=1)
        assert not refused, said
        assert "temperature" in said.splitlines()[0]
        picture = (
            await client.call_tool("history", {"device": "climate", "hours": 1, "picture": True})
        ).content
        assert [part.type for part in picture] == ["image"]
        assert picture[0].mime_type == "image/png"


@pytest.fixture
def address(world: World) -> Iterator[str]:
    port = free_port()
    with subprocess.Popen(door(world, "--http", f"127.0.0.1:{port}")) as process:
        try:
            until(lambda: listens(port), "the port")
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            process.terminate()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_it_is_served_to_programs_of_this_machine(address: str) -> None:
    async with mcp.Client(address) as client:
        assert "climate online" in (await say(client, "describe"))[0]


def test_an_address_that_others_can_reach_is_refused(world: World) -> None:
    done = subprocess.run(
        door(world, "--http", "0.0.0.0:8765"), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "no address of this machine alone" in done.stderr


def test_a_door_knows_nothing_but_the_control_socket() -> None:
    source = Path(__file__).parents[2] / "device_agent" / "operate" / "mcp_door.py"
    own = re.findall(r"from (device_agent\S*) import", source.read_text())
    assert set(own) == {"device_agent", "device_agent.errors"}
