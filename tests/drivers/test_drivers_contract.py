"""Every bundled driver keeps the rules that a third party's must keep."""

from importlib.metadata import entry_points
from typing import Any

import pytest

from device_agent.testing import check_driver

CASES: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "bme280": ({}, []),
    "gpio-input": ({"line": 17, "count": True, "bias": "pull-up"}, []),
    "gpio-output": ({"line": 27, "safe": False, "active_low": True}, []),
    "host": ({}, []),
    "mqtt-topic": (
        {
            "points": {
                "power": {"unit": "W", "topic": "plug/state", "path": "power"},
                "on": {
                    "type": "boolean", "topic": "plug/on",
                    "write": True, "write_topic": "plug/set", "safe": False,
                },
            }
        },
        [("plug/state", b'{"power": 3}'), ("plug/on", b"1")],
    ),
    "serial-bytes": ({}, [b"login: "]),
    "serial-lines": (
        {
            "pattern": "^W +(?P<weight>-?[0-9.]+)",
            "command": "SP {setpoint}\n",
            "points": {
                "weight": {"unit": "g"},
                "setpoint": {"unit": "g", "write": True, "minimum": 0, "maximum": 500, "safe": 0},
            },
        },
        [b"W 12.5\r\n"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_contract_of(name):
    (entry,) = entry_points(group="device_agent.drivers", name=name)
    options, feed = CASES[name]
    check_driver(entry.load(), options, feed=feed)
