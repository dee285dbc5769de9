"""What a model is told of many devices fits into what it can afford to read."""

import importlib
from collections.abc import Mapping
from typing import Any

import pytest

mcp = pytest.importorskip("mcp", reason="the extra is not installed")
mcp_door = importlib.import_module("device_agent.operate.mcp_door")

POINT = {"name": "active_power_phase_1", "type": "number", "unit": "W", "write": False}
METER = {"device": "meter", "state": "online", "points": [{**POINT, "name": f"power_{n}"} for n in range(40)]}
RELAY = {
    "device": "relay",
    "state": "online",
    "points": [{"name": "on", "type": "boolean", "write": True, "safe": False}],
    "actions": [{"name": "pulse", "arguments": [{"name": "for_s", "required": True}]}],
}


async def described(*devices: Mapping[str, Any]) -> str:
    async with mcp.Client(mcp_door.server("rig", lambda question: list(devices))) as client:
        return str((await client.call_tool("describe", {})).content[0].text)


async def test_ten_devices_take_a_thousand_tokens() -> None:
    said = await described(*({**METER, "device": f"meter_{n}"} for n in range(10)))
    assert len(said) <= 4000, "four characters a token"


async def test_a_device_takes_sixty_tokens_and_says_where_the_rest_is() -> None:
    said = (await described(METER, RELAY)).splitlines()
    assert len(said[0]) <= mcp_door.LINE_MAX == 240
    assert said[0].startswith("meter online: power_0 W, power_1 W,")
    assert said[0].endswith(", … all with `device`")
    assert said[1] == "relay online: on boolean set safe=false; do pulse(for_s)"
