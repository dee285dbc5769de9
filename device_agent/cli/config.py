"""`config describe`: every table and key of the configuration, from the models that read it."""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from device_agent.cli.common import Exit, print_json, print_table, styled, write_out
from device_agent.cli.drivers import markdown_table, option_row, options_of
from device_agent.config.types import format_size
from device_agent.schema import BaseModel

HEADS = ("key", "type", "default", "what it does")
NOTE = "<!-- Made from the models by `make driver-docs`: change the models, not this page. -->"
INTRODUCTION = """\
One TOML file; [configuring](configuring.md) has examples. Unknown keys are errors, units are in the names of
the keys, paths may begin with `~`, and a size is written "32 MB". `device-agent config describe` prints this,
and `device-agent drivers describe NAME` the options of a driver. Editors take a JSON Schema of it all:

```sh
device-agent config describe --json-schema > device-agent.schema.json
```

In VS Code the extension "Even Better TOML", elsewhere the language server of Taplo, use it in a file that
begins so:

```toml
#:schema ./device-agent.schema.json
```"""
PATTERN_OF_A_SIZE = r"^\s*\d{1,12}(\.\d{1,6})? ?(B|kB|MB|GB|KiB|MiB|GiB)\s*$"


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    config = subparsers.add_parser("config", help="every table and key of the configuration")
    verbs = config.add_subparsers(metavar="COMMAND", required=True)
    describe = verbs.add_parser("describe", help="every table and key", description=__doc__)
    form = describe.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="as JSON")
    form.add_argument("--json-schema", action="store_true", help="a JSON Schema of the file, for editors")
    form.add_argument("--markdown", action="store_true", help="as a page of documentation")
    describe.add_argument("--out", metavar="FILE", type=Path, help="with --markdown: the file to write")
    describe.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.json_schema:
        print_json(file_schema())
    elif args.json:
        print_json(sections())
    elif args.markdown:
        if args.out:
            write_out(args.out, page().encode())
        else:
            print(page(), end="")
    else:
        for section in sections():
            print(f"{styled(section['table'], 'bold')}  {section['description']}".rstrip())
            print_table(HEADS, [option_row(one) for one in section["keys"]])
            print()
    return Exit.DONE


def sections() -> list[dict[str, Any]]:
    """Each table: `table` as it is written, `description`, `keys` as `drivers describe` has options."""
    return list({section["table"]: section for section in reversed(list(_sections()))}.values())[::-1]


def _sections() -> Iterator[dict[str, Any]]:
    from device_agent.config import reader
    from device_agent.driver import ActuatorConfig, DriverConfig

    for name, model in reader.SINGLE.items():
        yield from _tables(name, model.model_json_schema())
    for kind, model in reader.BUS_KINDS.items():
        first, *inner = _tables("buses.NAME", model.model_json_schema())
        yield {**first, "table": f'[buses.NAME] with kind = "{kind}"'}
        yield from inner
    device, *_ = _tables("devices.NAME", DriverConfig.model_json_schema())
    driver = {
        "name": "driver",
        "type": "text",
        "required": True,
        "description": "See `device-agent drivers`.",
    }
    about = "A device; its driver has more options (`device-agent drivers describe NAME`)."
    yield {**device, "description": about, "keys": [driver, *device["keys"]]}
    actuator, *inner = _tables("devices.NAME", ActuatorConfig.model_json_schema())
    keys = [one for one in actuator["keys"] if one["name"] not in DriverConfig.model_fields]
    yield {"table": "[devices.NAME] of what moves", "description": "More of these.", "keys": keys}
    yield from inner
    for name, model in _named().items():
        yield from _tables(f"{name}.NAME", model.model_json_schema())


def _named() -> dict[str, type[BaseModel]]:
    """The sections of tables by name, but for buses and devices."""
    from device_agent.config.automation import Alert, Rule
    from device_agent.config.delegation import Delegation
    from device_agent.config.models import StreamConfig

    return {"streams": StreamConfig, "delegations": Delegation, "rules": Rule, "alerts": Alert}


def _tables(
    place: str, schema: Mapping[str, Any], defs: Mapping[str, Any] | None = None
) -> Iterator[dict[str, Any]]:
    """A table and the tables in it."""
    defs = schema.get("$defs", {}) if defs is None else defs
    about = " ".join(str(schema.get("description", "")).split("\n\n")[0].split())
    about = about.partition(": ")[2] if about.startswith("[") else about
    keys = options_of({**schema, "$defs": defs})
    for one in keys:
        if one["type"].startswith("table"):
            one.pop("default", None)
        elif one["name"].endswith("_bytes"):
            field = schema["properties"][one["name"]]
            one["type"] = f"size ≥ {format_size(field['minimum'])}, ≤ {format_size(field['maximum'])}"
            one["default"] = format_size(one["default"])
    yield {"table": f"[{place}]", "description": f"{about[:1].upper()}{about[1:]}", "keys": keys}
    for key, field in schema.get("properties", {}).items():
        for more, part in _inner(field, defs):
            yield from _tables(f"{place}.{key}{more}", part, defs)


def _inner(field: Mapping[str, Any], defs: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The models of a key, with what follows the key in their table's name."""
    if "$ref" in field:
        part = defs[field["$ref"].rpartition("/")[2]]
        if "properties" in part:
            yield "", part
    for one in (*field.get("anyOf", ()), *field.get("allOf", ())):
        yield from _inner(one, defs)
    if isinstance(field.get("items"), dict):
        yield from _inner(field["items"], defs)
    for one in (field.get("additionalProperties"), *field.get("patternProperties", {}).values()):
        if isinstance(one, dict):
            yield from ((f".NAME{more}", part) for more, part in _inner(one, defs))


def page() -> str:
    """docs/configuration.md."""
    parts = [NOTE, "# Every table and key", INTRODUCTION]
    for section in sections():
        rows = [option_row(one) for one in section["keys"]]
        parts += [f"## `{section['table']}`", section["description"], markdown_table(HEADS, rows)]
    return "\n\n".join(filter(None, parts)) + "\n"


# -- for editors --------------------------------------------------------------------------------------------


def file_schema() -> dict[str, Any]:
    """A JSON Schema of the whole file, with the options of the installed drivers."""
    from pydantic.json_schema import models_json_schema

    from device_agent import registry
    from device_agent.config import reader

    drivers = {name: registry.load(name).Config for name in registry.names()}
    models: list[Any] = [
        *reader.SINGLE.values(),
        *reader.BUS_KINDS.values(),
        *drivers.values(),
        *_named().values(),
    ]
    refs, document = models_json_schema([(model, "validation") for model in models])

    def of(model: Any) -> dict[str, Any]:
        return dict(refs[model, "validation"])

    def several(*parts: dict[str, Any]) -> dict[str, Any]:
        return {"type": "object", "additionalProperties": parts[0] if len(parts) == 1 else {"oneOf": parts}}

    defs = {name: _loosened(name, schema) for name, schema in document["$defs"].items()}
    for name, model in drivers.items():
        known = defs[of(model)["$ref"].rpartition("/")[2]]
        known["properties"]["driver"] = {"const": name}
        known["required"] = sorted({*known.get("required", ()), "driver"})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "device-agent",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            **{name: of(model) for name, model in reader.SINGLE.items()},
            "buses": several(*map(of, reader.BUS_KINDS.values())),
            "devices": several(*map(of, drivers.values())),
            **{name: several(of(model)) for name, model in _named().items()},
        },
        "$defs": defs,
    }


def _loosened(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Also the short forms that validators take before the model does."""
    for key, field in schema.get("properties", {}).items():
        short = None
        if key.endswith("_bytes"):
            short = {"type": "string", "pattern": PATTERN_OF_A_SIZE}
        elif "anyone" in str(field.get("items", field.get("anyOf", ""))):
            short = {"const": "anyone"}
        elif (name, key) == ("When", "status"):
            short = {"type": "string"}
        if short is not None:
            about = {one: field.pop(one) for one in ("description", "default") if one in field}
            schema["properties"][key] = {"anyOf": [field, short], **about}
    return {"anyOf": [{"type": "string"}, schema]} if name == "TagConfig" else schema
