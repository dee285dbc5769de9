"""What Home Assistant is told, in the words of its documentation."""

from typing import Any

from device_agent.mqtt.discovery import announcements
from device_agent.records import Unit

AT = "device-agent/a"


def point(name: str, type_: str = "number", *, write: bool = False, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": type_, "write": write, **more}


def announced(*points: dict[str, Any], commands: bool = True, **more: Any) -> dict[str, Any]:
    described = {"device": "rig", "state": "online", "points": list(points), **more}
    return announcements([described], "a", AT, "1.2", commands)["rig"]


def test_a_device_says_who_it_is_and_when_it_is_there() -> None:
    payload = announced(point("x"))
    assert payload["dev"] == {"ids": ["a_rig"], "name": "A rig", "mf": "device-agent", "sw": "1.2"}
    assert payload["o"] == {"name": "device-agent", "sw": "1.2"}
    assert payload["avty"] == [{"t": f"{AT}/availability"}, {"t": f"{AT}/rig/availability"}]
    assert payload["avty_mode"] == "all"
    assert payload["stat_t"] == f"{AT}/rig/state"
    assert payload["cmps"]["x"]["uniq_id"] == "a_rig_x"


def test_units_and_classes() -> None:
    wanted = {
        ("temperature", "Cel"): ("°C", "temperature"),
        ("humidity", "%"): ("%", "humidity"),
        ("load", "%"): ("%", None),
        ("co2", "[ppm]"): ("ppm", "carbon_dioxide"),
        ("pm2_5", "ug/m3"): ("µg/m³", "pm25"),
        ("energy", "kW.h"): ("kWh", "energy"),
        ("acidity", "[pH]"): (None, "ph"),
        ("count", "1"): (None, None),
        ("odd", "[foo]"): ("[foo]", None),
    }
    parts = announced(*(point(name, unit=unit) for name, unit in wanted))["cmps"]
    found = {
        (name, unit): (parts[name].get("unit_of_meas"), parts[name].get("dev_cla")) for name, unit in wanted
    }
    assert found == wanted
    assert parts["energy"]["stat_cla"] == parts["count"]["stat_cla"] == "total_increasing"
    assert parts["temperature"]["stat_cla"] == "measurement"


def test_every_unit_of_the_runtime_has_one_that_home_assistant_can_show() -> None:
    """None of them is passed on in UCUM's brackets and dots, but for those that nobody has a sign for."""
    parts = announced(*(point(f"p{n}", unit=unit) for n, unit in enumerate(Unit)))["cmps"]
    odd = {unit for part in parts.values() if set(unit := part.get("unit_of_meas", "")) & set("[].")}
    assert not odd


def test_what_can_be_set_is_a_switch_a_number_or_a_text_with_its_bounds() -> None:
    parts = announced(
        point("on", "boolean", write=True),
        point("duty", write=True, minimum=0, maximum=1),
        point("steps", "integer", write=True, minimum=0, maximum=400),
        point("line", "string", write=True),
    )["cmps"]
    assert {name: part["p"] for name, part in parts.items()} == {
        "on": "switch",
        "duty": "number",
        "steps": "number",
        "line": "text",
        "last_command": "sensor",
    }
    assert (parts["on"]["cmd_t"], parts["on"]["pl_on"]) == (f"{AT}/rig/on/set", "true")
    assert (parts["duty"]["min"], parts["duty"]["max"], parts["duty"]["step"]) == (0, 1, 0.01)
    assert parts["steps"]["step"] == 1
    assert parts["last_command"]["stat_t"] == f"{AT}/rig/ack"


def test_without_commands_it_is_only_shown() -> None:
    action = {"name": "blink", "moves": True, "arguments": []}
    parts = announced(point("on", "boolean", write=True), commands=False, actions=[action])["cmps"]
    assert [part["p"] for part in parts.values()] == ["binary_sensor"]
    assert "cmd_t" not in parts["on"]


def test_an_action_that_needs_nothing_is_a_button() -> None:
    needs = {"name": "for_s", "required": True}
    actions = [{"name": "pulse", "arguments": [needs]}, {"name": "tare", "arguments": []}]
    parts = announced(point("weight"), actions=actions)["cmps"]
    assert parts["do_tare"] == {
        "p": "button",
        "name": "Tare",
        "cmd_t": f"{AT}/rig/do/tare",
        "pl_prs": "{}",
        "uniq_id": "a_rig_do_tare",
    }
    assert "do_pulse" not in parts


def test_what_is_polled_expires() -> None:
    assert announced(point("x"), every_s=2)["cmps"]["x"]["exp_aft"] == 30
    assert announced(point("x"), every_s=60)["cmps"]["x"]["exp_aft"] == 180
    assert "exp_aft" not in announced(point("x"))["cmps"]["x"]


def test_a_delegation_is_no_device() -> None:
    assert announcements([{"device": "night_watch", "actions": []}], "a", AT, "1", True) == {}
