"""What Home Assistant is told of each device, so that it shows it by itself: its device discovery.

One retained message a device, with a component for each point and action
(https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

# By device class, the units that Home Assistant knows it in: UCUM, and its own spelling where that differs.
CLASSES: dict[str | None, str] = {
    "temperature": "Cel=°C K",
    "pressure": "hPa Pa kPa bar",
    "illuminance": "lx",
    "voltage": "V mV",
    "current": "A mA",
    "power": "W kW",
    "apparent_power": "V.A=VA",
    "reactive_power": "var",
    "energy": "W.h=Wh kW.h=kWh J",
    "frequency": "Hz",
    "duration": "ms s min h",
    "distance": "mm cm m km",
    "speed": "m/s km/h",
    "weight": "g kg",
    "volume_storage": "mL L m3=m³",
    "volume_flow_rate": "L/min m3/h=m³/h",
    "data_size": "By=B MBy=MB",
    "conductivity": "uS/cm=µS/cm",
    "signal_strength": "dB[mW]=dBm",
    "ph": "[pH]=",
    None: "1= [ppm]=ppm [ppb]=ppb ug/m3=µg/m³ uT=µT Ohm=Ω deg=° deg/s=°/s m/s2=m/s²",
}
UNITS = {
    code: (unit if differs else code, class_)
    for class_, units in CLASSES.items()
    for code, differs, unit in (one.partition("=") for one in units.split())
}
# Classes that the unit does not tell, by words of the point's name: (unit, word, class).
BY_NAME = (
    ("%", "humid", "humidity"),
    ("%", "moisture", "moisture"),
    ("%", "battery", "battery"),
    ("[ppm]", "co2", "carbon_dioxide"),
    ("ug/m3", "pm10", "pm10"),
    ("ug/m3", "pm2_5", "pm25"),
    ("ug/m3", "pm25", "pm25"),
    ("ug/m3", "pm1", "pm1"),
)
# What only grows, or begins anew.
TOTALS = ("energy",)
# A point that was not heard of for so many of its periods is unknown, but not before the least.
EXPIRE_PERIODS = 3
EXPIRE_LEAST_S = 30
# Of a point that can be set and has no bounds.
UNBOUNDED = 1e9
STATE_MAX = 255


def announcements(
    described: Sequence[Mapping[str, Any]], agent: str, prefix: str, version: str, commands: bool
) -> dict[str, dict[str, Any]]:
    """A discovery payload for each device (as `describe` gives them), by its name.

    Without `commands` what could be set is only shown.
    """
    return {
        one["device"]: _payload(one, agent, f"{prefix}/{one['device']}", version, commands)
        | {
            "avty": [{"t": f"{prefix}/availability"}, {"t": f"{prefix}/{one['device']}/availability"}],
            "avty_mode": "all",
        }
        for one in described
        if "points" in one
    }


def _payload(
    described: Mapping[str, Any], agent: str, place: str, version: str, commands: bool
) -> dict[str, Any]:
    id_ = f"{agent}_{described['device']}"
    parts = {
        point["name"]: _point(point, place, described.get("every_s"), commands)
        for point in described["points"]
    }
    actions = described.get("actions", ()) if commands else ()
    for action in actions:
        if not any(argument["required"] for argument in action["arguments"]):
            name = action["name"]
            topic = f"{place}/do/{name}"
            parts[f"do_{name}"] = {"p": "button", "name": _title(name), "cmd_t": topic, "pl_prs": "{}"}
    if commands and (actions or any(point["write"] for point in described["points"])):
        parts["last_command"] = _last_command(place)
    return {
        "dev": {
            "ids": [id_],
            "name": f"{_title(agent)} {_title(described['device']).lower()}",
            "mf": "device-agent",
            "sw": version,
        },
        "o": {"name": "device-agent", "sw": version},
        "stat_t": f"{place}/state",
        "cmps": {name: part | {"uniq_id": f"{id_}_{name}"} for name, part in parts.items()},
    }


def _point(point: Mapping[str, Any], place: str, every_s: float | None, commands: bool) -> dict[str, Any]:
    name, write = point["name"], point["write"] and commands
    value = f"value_json['values']['{name}']"
    attributes = (
        f"{{{{ {{'at': value_json.at, 'flag': value_json.get('flags', {{}}).get('{name}')}} | tojson }}}}"
    )
    part: dict[str, Any] = {
        "name": _title(name),
        "val_tpl": f"{{{{ {value} }}}}",
        "json_attr_t": f"{place}/state",
        "json_attr_tpl": attributes,
    }
    if write:
        part["cmd_t"] = f"{place}/{name}/set"
    elif every_s is not None:
        part["exp_aft"] = max(EXPIRE_LEAST_S, math.ceil(EXPIRE_PERIODS * every_s))
    if point["type"] == "boolean":
        template = f"{{{{ {{True: 'true', False: 'false'}}.get({value}) }}}}"
        payloads = {"pl_on": "true", "pl_off": "false", "val_tpl": template}
        return part | payloads | {"p": "switch" if write else "binary_sensor"}
    if point["type"] == "string":
        # As an object, for text such as 12 or true would be another type.
        text = {"cmd_tpl": "{{ {'value': value} | tojson }}", "max": STATE_MAX} if write else {}
        return part | text | {"p": "text" if write else "sensor"}
    unit, class_ = _unit(point)
    part |= {"unit_of_meas": unit} if unit else {}
    part |= {"dev_cla": class_} if class_ else {}
    if write:
        return part | _range(point) | {"p": "number"}
    counts = class_ in TOTALS or name == "count"
    return part | {"p": "sensor", "stat_cla": "total_increasing" if counts else "measurement"}


def _unit(point: Mapping[str, Any]) -> tuple[str, str | None]:
    code = point.get("unit", "")
    unit, class_ = UNITS.get(code, (code, None))
    named = (known for of, word, known in BY_NAME if of == code and word in point["name"])
    return unit, next(named, class_)


def _range(point: Mapping[str, Any]) -> dict[str, Any]:
    low, high = point.get("minimum", -UNBOUNDED), point.get("maximum", UNBOUNDED)
    step = 1.0 if point["type"] == "integer" else 10.0 ** (math.floor(math.log10(high - low)) - 2)
    return {"min": low, "max": high, "step": min(1.0, max(0.001, step)), "mode": "box"}


def _last_command(place: str) -> dict[str, Any]:
    """Shows what was refused, and by which rule."""
    error = "(value_json.error.code ~ ': ' ~ value_json.error.message)"
    return {
        "p": "sensor",
        "name": "Last command",
        "ent_cat": "diagnostic",
        "stat_t": f"{place}/ack",
        "val_tpl": f"{{{{ ({error} if value_json.error is defined else value_json.state)[:{STATE_MAX}] }}}}",
    }


def _title(name: str) -> str:
    words = name.replace("_", " ")
    return words[:1].upper() + words[1:]
