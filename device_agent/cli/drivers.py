"""`device-agent drivers`: what is installed, and what each driver takes and gives."""

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_agent import registry
from device_agent.cli.common import Exit, print_json, print_table, styled
from device_agent.cli.show import unit_text
from device_agent.errors import ConfigError

if TYPE_CHECKING:
    from device_agent.driver import Driver


def register(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "drivers",
        help="installed drivers: options, points, units",
        description="List the installed drivers, or describe one: its options with types, bounds and "
        "defaults, its points with units, its actions.",
    )
    parser.add_argument(
        "what", nargs="?", choices=["describe"], metavar="describe", help="describe one driver"
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="its name")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--markdown", action="store_true", help="as a page of documentation")
    parser.add_argument("--out", metavar="DIR", help="with --markdown: a page of each driver, and an index")
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    if args.markdown and args.out:
        write_all(Path(args.out))
        return Exit.DONE
    if args.what is None:
        return _list(as_json=args.json)
    if args.name is None:
        args.parser.error("describe needs the NAME of a driver: see device-agent drivers")
    if args.markdown:
        print(page(description(args.name)), end="")
        return Exit.DONE
    return _describe(args.name, as_json=args.json)


def summary(name: str) -> dict[str, Any]:
    """One driver in a line; a broken package shows its error and hides no other."""
    entry: dict[str, Any] = {"name": name, "package": registry.origin(name)}
    try:
        driver = registry.load(name)
    except ConfigError as error:
        return {**entry, "error": str(error)}
    about = (sys.modules[driver.__module__].__doc__ or driver.__doc__ or "").strip().partition("\n")[0]
    return {**entry, "bus": driver.Bus.kind, "description": about}


def _dialects(driver: type) -> str:
    """The paragraph of the driver's module that names the dialects it was tried with, or ""."""
    paragraphs = (sys.modules[driver.__module__].__doc__ or "").split("\n\n")
    return next((" ".join(one.split()) for one in paragraphs if one.startswith("Dialects")), "")


def description(name: str) -> dict[str, Any]:
    """Everything a person needs to configure one driver. Raises ConfigError."""
    driver = registry.load(name)
    options = options_of(driver.Config.model_json_schema(), needs_bus=driver.Bus.kind != "none")
    for option in options:
        if option["name"] == "every_s" and driver.default_every_s is not None:
            option.setdefault("default", driver.default_every_s)
    return {
        **summary(name),
        "dialects": _dialects(driver),
        "options": options,
        "points": [_point(point) for point in driver.points],
        "points_as_configured": "points_of" in _own_names(driver),
        "tables": _tables(driver.Config.model_json_schema()),
        "example": example(name, driver),
        "simulator": driver.simulator is not None,
        "actions": [_action(action) for action in driver.actions],
    }


# A bus of each kind, as an example names it.
BUSES = {
    "gpio": (
        "pins",
        'kind = "gpio"\nchip = "pinctrl-bcm2711"  # Pi 4; up to Pi 3 "pinctrl-bcm2835", Pi 5 "pinctrl-rp1"',
    ),
    "i2c": ("i2c1", 'kind = "i2c"\ndevice = "/dev/i2c-1"'),
    "mqtt": ("broker", 'kind = "mqtt"\nhost = "127.0.0.1"'),
    "serial": ("port", 'kind = "serial"\nport = { vid = 0x0403, pid = 0x6001 }\nbaud = 9600'),
    "spi": ("spi0", 'kind = "spi"\ndevice = "/dev/spidev0.0"'),
    "w1": ("w1", 'kind = "w1"'),
}


def example(name: str, driver: "type[Driver[Any, Any]]") -> str:
    """The part of a configuration that uses this driver, complete with its bus."""
    lines = []
    bus, table = BUSES.get(driver.Bus.kind, ("", ""))
    if driver.pulses:
        table += '\npwm = { 18 = "fe20c000.pwm/0" }  # Pi 4; Pi 5 "1f00098000.pwm/2"; see device-agent scan'
    if bus:
        lines += [f"[buses.{bus}]", table, ""]
    lines += [f"[devices.{re.sub(r'[^a-z0-9_]', '_', name)}]", f'driver = "{name}"']
    lines += [f'bus = "{bus}"'] if bus else []
    return "\n".join([*lines, *driver.example.strip().splitlines()])


def _tables(schema: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Options that are tables with a model of their own, such as `points` of configured drivers."""
    tables = {}
    for key, field in schema.get("properties", {}).items():
        by_name = next(iter(field.get("patternProperties", {}).values()), None)
        inner = by_name or field.get("additionalProperties") or field.get("items")
        if isinstance(inner, Mapping) and "$ref" in inner:
            part = schema["$defs"][inner["$ref"].rpartition("/")[2]]
            if "properties" in part:
                tables[key] = options_of({**part, "$defs": schema["$defs"]}, needs_bus=False)
    return tables


def _own_names(driver: type) -> set[str]:
    from device_agent.driver import Actuator, Driver, Listener, Sensor

    bases = (Driver, Sensor, Listener, Actuator)
    return {name for base in driver.__mro__ if base not in bases for name in vars(base)}


def options_of(schema: Mapping[str, Any], *, needs_bus: bool | None = None) -> list[dict[str, Any]]:
    """Each property of a JSON Schema: `name`, `type` in words, `required`, `default`, `description`."""
    required = [*schema.get("required", []), *(["bus"] if needs_bus else [])]
    options = []
    for key, field in schema.get("properties", {}).items():
        if key == "driver" or (key == "bus" and needs_bus is False):
            continue
        words = _type(field, schema)
        if key == "address":
            words = re.sub(r"\d+", lambda number: f"{int(number[0]):#04x}", words)
        option: dict[str, Any] = {"name": key, "type": words, "required": key in required}
        if "default" in field and field["default"] is not None:
            option["default"] = field["default"]
        if "description" in field:
            option["description"] = field["description"]
        options.append(option)
    # What must be written comes first, then the driver's own options, then those that every device has.
    from device_agent.driver import ActuatorConfig

    common = ActuatorConfig.model_fields
    return sorted(options, key=lambda option: (not option["required"], option["name"] in common))


def _type(field: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """A field of a JSON Schema as text: "integer 0..127", "number > 0", "a | b", "list of text"."""
    if "$ref" in field:
        return _type(schema["$defs"][field["$ref"].rpartition("/")[2]], schema)
    if "anyOf" in field:
        words = [_type(one, schema) for one in field["anyOf"] if one.get("type") != "null"]
        if {"true | false", "number", "text"} <= set(words):
            words = ["value", *(word for word in words if word.startswith(("table", "list")))]
        return " or ".join(dict.fromkeys(words))
    if "enum" in field:
        return " | ".join(f'"{one}"' if isinstance(one, str) else str(one) for one in field["enum"])
    if "const" in field:
        return f'"{field["const"]}"'
    match field.get("type"):
        case "array" if "prefixItems" in field:
            return f"[{', '.join(_type(one, schema) for one in field['prefixItems'])}]"
        case "array":
            return f"list of {_type(field.get('items', {}), schema)}"
        case "object":
            inner = field.get("additionalProperties")
            inner_words = _type(inner, schema) if isinstance(inner, Mapping) and inner else "any"
            return "table" if inner_words in ("any", "table") else f"table of {_several(inner_words)}"
        case "string":
            return "text"
        case "boolean":
            return "true | false"
        case "integer" | "number" as kind:
            return f"{kind}{_bounds(field)}"
    return "any"


def _several(words: str) -> str:
    """ "number ≥ 0" to "numbers ≥ 0"."""
    kind, space, rest = words.partition(" ")
    return f"{kind}s{space}{rest}" if kind.isalpha() else f"{words}s"


def _bounds(field: Mapping[str, Any]) -> str:
    bounds = [
        f"{sign} {field[key]:.12g}"
        for key, sign in (
            ("exclusiveMinimum", ">"),
            ("minimum", "≥"),
            ("exclusiveMaximum", "<"),
            ("maximum", "≤"),
        )
        if key in field
    ]
    return f" {', '.join(bounds)}" if bounds else ""


def _point(point: Any) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": point.name, "type": point.type, "unit": str(point.unit)}
    if getattr(point, "write", False):
        entry["write"] = True
    for key in ("low", "high", "minimum", "maximum"):
        if (bound := getattr(point, key, None)) is not None:
            entry[key] = bound
    if point.description:
        entry["description"] = point.description
    return entry


def _action(action: Any) -> dict[str, Any]:
    arguments = [_point(argument) | {"required": argument.required} for argument in action.arguments]
    return {
        "name": action.name,
        "description": action.description,
        "moves": action.moves,
        "arguments": arguments,
    }


def _list(*, as_json: bool) -> int:
    found = [summary(name) for name in registry.names()]
    if as_json:
        print_json(found)
        return Exit.DONE
    rows = [[one["name"], one.get("bus", "?"), one.get("error") or one["description"]] for one in found]
    print_table(["driver", "bus", "what it is"], rows)
    return Exit.DONE


def _describe(name: str, *, as_json: bool) -> int:
    driver = description(name)
    if as_json:
        print_json(driver)
        return Exit.DONE
    bus = "needs no bus" if driver["bus"] == "none" else f'needs a bus of kind "{driver["bus"]}"'
    print(f"{styled(driver['name'], 'bold')} ({driver['package']}), {bus}")
    print(driver["description"])
    print()
    print_table(["option", "type", "default", "what it does"], [option_row(one) for one in driver["options"]])
    print()
    if driver["points"]:
        print_table(
            ["point", "type", "unit", "range", "what it is"], [point_row(one) for one in driver["points"]]
        )
    if driver["points_as_configured"]:
        print("Which points a device has depends on its options.")
    for action in driver["actions"]:
        arguments = ", ".join(one["name"] for one in action["arguments"])
        print(f"\naction {styled(action['name'], 'bold')}({arguments}): {action['description']}")
        for one in action["arguments"]:
            print(f"  {'  '.join(filter(None, point_row(one)))}")
    for key, options in driver["tables"].items():
        print(f"\neach of {styled(key, 'bold')}:")
        print_table(["option", "type", "default", "what it does"], [option_row(one) for one in options])
    print("\nexample:\n")
    print("\n".join(f"    {line}".rstrip() for line in driver["example"].splitlines()))
    return Exit.DONE


def option_row(option: dict[str, Any]) -> list[str]:
    default = "required" if option["required"] else _plain(option.get("default"), option["name"])
    return [option["name"], option["type"], default, option.get("description", "")]


def _plain(value: Any, name: str = "") -> str:
    if value is None or value == [] or value == {}:
        return ""
    if name == "address":
        return f"{value:#04x}"
    return f"{value:.12g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def point_row(point: dict[str, Any]) -> list[str]:
    low, high = (point.get(key, point.get(other)) for key, other in (("minimum", "low"), ("maximum", "high")))
    bounds = "" if low is None and high is None else f"{_plain(low)}..{_plain(high)}"
    words = [point.get("description", ""), "(can be set)" if point.get("write") else ""]
    return [point["name"], point["type"], unit_text(point["unit"]), bounds, " ".join(filter(None, words))]


NOTE = "<!-- Made from the driver's model by `make driver-docs`: change the driver, not this page. -->"


def write_all(folder: Path) -> None:
    """A page of each installed driver, and README.md with a line for each."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """The text of each file by its name. Raises ConfigError for a driver that cannot be loaded."""
    drivers = [description(name) for name in registry.names()]
    rows = [(f"[{one['name']}]({one['name']}.md)", one["bus"], one["description"]) for one in drivers]
    index = "\n".join(
        [markdown_row(("driver", "bus", "what it is")), markdown_row(["---"] * 3), *map(markdown_row, rows)]
    )
    return {
        "README.md": f"{NOTE}\n\n# Drivers\n\n{index}\n",
        **{f"{one['name']}.md": page(one) for one in drivers},
    }


def page(driver: Mapping[str, Any]) -> str:
    """Markdown from `description`."""
    bus = "It needs no bus." if driver["bus"] == "none" else f"It sits on a bus of kind `{driver['bus']}`."
    parts = [NOTE, f"# {driver['name']}", driver["description"], bus, f"```toml\n{driver['example']}\n```"]
    if driver["dialects"]:
        parts.append(driver["dialects"])
    parts += [
        "## Options",
        markdown_table(("option", "type", "default", "what it does"), map(option_row, driver["options"])),
    ]
    for key, options in driver["tables"].items():
        parts += [f"Each of `{key}` has:"]
        parts += [markdown_table(("option", "type", "default", "what it does"), map(option_row, options))]
    parts.append("## Points")
    if driver["points"]:
        rows = map(point_row, driver["points"])
        parts.append(markdown_table(("point", "type", "unit", "range", "what it is"), rows))
    if driver["points_as_configured"]:
        parts.append("Which points a device has depends on its options.")
    if driver["actions"]:
        parts.append("## Actions")
    for action in driver["actions"]:
        parts.append(f"`{action['name']}`: {action['description']}")
        if action["arguments"]:
            rows = map(point_row, action["arguments"])
            parts.append(markdown_table(("argument", "type", "unit", "range", "what it is"), rows))
    if driver["simulator"]:
        parts.append("With `--simulate` a simulated chip takes its place.")
    return "\n\n".join(parts) + "\n"


def markdown_table(heads: Sequence[str], rows: Any) -> str:
    """A table; bars inside a cell are escaped, names stand as code."""
    lines = [markdown_row(heads), markdown_row(["---"] * len(heads))]
    for first, *rest in rows:
        lines.append(markdown_row([f"`{first}`", *(cell.replace("|", "\\|") for cell in rest)]))
    return "\n".join(lines)


def markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
