"""One configuration of each bundled driver, and what the far end says where its simulator is silent."""

from typing import Any

from device_agent import registry

CONFIGURED: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "gpio-input": ({"line": 17, "count": True, "bias": "pull-up"}, []),
    "gpio-output": ({"line": 27, "safe": False, "active_low": True}, []),
    "gpio-pwm": ({"line": 18, "safe": 0}, []),
    "hc-sr04": ({"trigger": 23, "echo": 24}, []),
    "i2c-registers": (
        {
            "address": 0x48,
            "id": {"register": 15, "value": 7},
            "points": {"temperature": {"register": 0, "signed": True, "unit": "Cel"}},
        },
        [],
    ),
    "framed-msgpack": ({"points": {"level": {"unit": "V"}}}, []),
    "ina219": ({"shunt_ohms": 0.1, "max_current_a": 2}, []),
    "ina226": ({"shunt_ohms": 0.1, "max_current_a": 0.8}, []),
    "mcp23017": ({"inputs": ["a0"], "outputs": ["b7"], "safe": False}, []),
    "modbus-rtu": ({"points": {"level": {"kind": "holding", "address": 3}}}, []),
    "pca9685": ({"safe": 0}, []),
    "pcf8574": ({"inputs": ["p0"], "outputs": ["p7"], "safe": False}, []),
    "rotary-encoder": ({"line_a": 5, "line_b": 6}, []),
    "servo": ({"line": 18, "safe": 90}, []),
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
    "serial-ask": (
        {"ask": "SI\r\n", "pattern": "^S S +(?P<weight>[0-9.]+)", "points": {"weight": {"unit": "g"}}},
        [],
    ),
    "serial-bytes": ({}, [b"login: "]),
    "serial-frames": (
        {
            "frame": {"start": "AA C0", "length": 10, "end": "AB", "checksum": "sum8", "checksum_from": 2},
            "points": {"pm2_5": {"at": 2, "code": "u16", "unit": "ug/m3"}},
        },
        [bytes.fromhex("AAC0D4043A0AA1601DAB")],
    ),
    "serial-lines": (
        {
            "pattern": "^W +(?P<weight>-?[0-9.]+)",
            "command": "SP {setpoint}\n",
            "points": {
                "weight": {"unit": "g"},
                "setpoint": {"unit": "g", "write": True, "minimum": 0, "maximum": 500, "safe": 0},
            },
        },
        [b"\r\nW 12.5\r\n"],
    ),
}  # fmt: skip

CASES = {name: CONFIGURED.get(name, ({}, [])) for name in registry.names()}
"""Every installed driver: one that is forgotten above fails where its options have no defaults."""
