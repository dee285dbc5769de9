"""Reads a TOML file into a `Config`, or raises one error with every fault of the file."""

import math
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

from pydantic import BaseModel, ValidationError

from device_agent import registry
from device_agent.bus import config as bus_config
from device_agent.config.access import AccessConfig
from device_agent.config.automation import Alert, Rule
from device_agent.config.checks import cross_checks, warnings
from device_agent.config.delegation import Delegation, DelegationConfig
from device_agent.config.draft import ConfigDraft, DraftDevice, ask, describe
from device_agent.config.explain import sentences, show, unknown_key
from device_agent.config.models import (
    AgentConfig,
    Config,
    HistoryConfig,
    NetworkConfig,
    OutboxConfig,
    SafetyConfig,
    StateConfig,
    StreamConfig,
)
from device_agent.config.mqtt import MqttConfig
from device_agent.config.page import PageConfig
from device_agent.config.types import NAME_MAX, WORD
from device_agent.driver import Driver
from device_agent.errors import ConfigError

FILE_MAX_BYTES = 1_000_000
DEPTH_MAX = 16
BUSES_MAX = 64
DEVICES_MAX = 256
STREAMS_MAX = 32
DELEGATIONS_MAX = 32
RULES_MAX = 64

LoadDriver = Callable[[str], type[Driver[Any, Any]]]
M = TypeVar("M", bound=BaseModel)

SINGLE: dict[str, type[BaseModel]] = {
    "agent": AgentConfig,
    "network": NetworkConfig,
    "state": StateConfig,
    "outbox": OutboxConfig,
    "history": HistoryConfig,
    "safety": SafetyConfig,
    "access": AccessConfig,
    "delegation": DelegationConfig,
    "page": PageConfig,
    "mqtt": MqttConfig,
}
_MANY = {
    "buses": BUSES_MAX,
    "devices": DEVICES_MAX,
    "streams": STREAMS_MAX,
    "delegations": DELEGATIONS_MAX,
    "rules": RULES_MAX,
    "alerts": RULES_MAX,
}

BUS_KINDS: dict[str, type[BaseModel]] = {
    get_args(model.model_fields["kind"].annotation)[0]: model
    for model in get_args(get_args(bus_config.BusConfig)[0])
}


def load(
    path: Path, *, environ: Mapping[str, str] = os.environ, load_driver: LoadDriver = registry.load
) -> Config:
    """Read and check a configuration without touching hardware, network or state.

    Raises ConfigError whose `problems` hold every fault found, one sentence each.
    """
    document = _read(path)
    reader = _Reader(path, environ, load_driver)
    config = reader.config(document)
    if reader.problems:
        problems = tuple(dict.fromkeys(_one_line(problem) for problem in reader.problems))
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ConfigError(f"{path}: {problems[0]}{more}", problems)
    return cast(Config, config)


def load_state(path: Path, *, environ: Mapping[str, str] = os.environ) -> StateConfig:
    """Where things are kept, whatever the rest of the file says; the defaults where it does not tell."""
    try:
        document = _read(path)
    except ConfigError:
        document = _part(path, "state")
    written = document.get("state")
    known = written if isinstance(written, dict) else {}
    places = {key: known[key] for key in ("directory", "runtime_directory") if key in known}
    reader = _Reader(path, environ, registry.load)
    found = reader.table("state", StateConfig, places) or reader.table("state", StateConfig, {})
    return cast(StateConfig, found)


def _part(path: Path, name: str) -> dict[str, Any]:
    """One table of a file that is no TOML as a whole, for instance in the middle of an edit."""
    try:
        text = path.read_bytes()[:FILE_MAX_BYTES].decode("utf-8-sig", "replace")
        found = re.search(rf"(?ms)^[ \t]*\[[ \t]*{name}[ \t]*\].*?(?=^[ \t]*\[|\Z)", text)
        return tomllib.loads(found[0]) if found else {}
    except (OSError, ValueError, RecursionError):
        return {}


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise ConfigError(
            f"there is no configuration at {path}: make one with device-agent init, or name it with --config"
        ) from error
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the configuration {path} cannot be read ({error}): check path and rights"
        ) from error
    if len(data) > FILE_MAX_BYTES:
        raise ConfigError(f"the configuration {path} is larger than {FILE_MAX_BYTES} bytes: shorten it")
    try:
        text = data.decode("utf-8-sig")  # Windows editors put a BOM first
        document = tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path} is not UTF-8 text (line {line}): save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {_placed(str(error), text)}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid TOML: a value is too large or nested too deeply") from error
    if fault := next(_too_deep(document), None):
        raise ConfigError(f"{path}: {fault} is nested more than {DEPTH_MAX} deep: flatten it")
    return document


def _placed(message: str, text: str) -> str:
    lines = text.split("\n")
    return message.replace("(at end of document)", f"(at line {len(lines)}, column {len(lines[-1]) + 1})")


def _children(place: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [(f"{place}.{key}" if place else key, item) for key, item in value.items()]
    if isinstance(value, list):
        return [(f"{place}.{index}", item) for index, item in enumerate(value)]
    return []


def _too_deep(document: dict[str, Any]) -> Iterator[str]:
    level = _children("", document)
    for _ in range(DEPTH_MAX):
        level = [child for place, value in level for child in _children(place, value)]
    for place, _value in level:
        yield place


def _unusable_values(document: dict[str, Any]) -> Iterator[str]:
    """TOML allows nan, inf and numbers of any length; a device does not. Nobody fills in variables."""
    waiting = _children("", document)
    while waiting:
        place, value = waiting.pop()
        waiting.extend(_children(place, value))
        if isinstance(value, float) and not math.isfinite(value):
            yield f"{place} = {value} must be a finite number"
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            yield f"{place} does not fit 64 bits: write a smaller number"
        elif isinstance(value, str) and re.fullmatch(r"\S*\$\{[A-Za-z_]\w*\}\S*", value):
            yield f"{place} = {show(value)} stays as it is: variables are not filled in, write the value"


def _taken_for_boolean(place: str, written: Any, taken: Any) -> Iterator[str]:
    """Drivers' models take "no" and 0 for false: what decides on a level is to be written as what it is."""
    if isinstance(taken, bool) and not isinstance(written, bool):
        yield f"{place} = {show(written)} must be true or false, without quotes"
    elif isinstance(written, dict) and isinstance(taken, (BaseModel, Mapping)):
        fields = dict(taken)
        for key, value in written.items():
            yield from _taken_for_boolean(f"{place}.{key}", value, fields.get(key))
    elif isinstance(written, list) and isinstance(taken, (list, tuple)):
        for index, pair in enumerate(zip(written, taken, strict=False)):
            yield from _taken_for_boolean(f"{place}.{index}", *pair)


def _one_line(problem: str) -> str:
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in problem)


class _Reader:
    """One pass over a document; collects problems instead of stopping at the first."""

    def __init__(self, path: Path, environ: Mapping[str, str], load_driver: LoadDriver) -> None:
        self.path = path.absolute()
        self.problems: list[str] = []
        self._load_driver = load_driver
        runtime = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
        self._context = {"base": self.path.parent, "runtime_directory": runtime or None}

    def config(self, document: dict[str, Any]) -> Config | None:
        """The whole, or None where `problems` is not empty."""
        self.problems += _unusable_values(document)
        for key in document.keys() - SINGLE.keys() - _MANY.keys():
            self.problems.append(unknown_key("", key, (*SINGLE, *_MANY)))
        notes = self._rename_skills(document)
        single = {name: self.table(name, model, document.get(name, {})) for name, model in SINGLE.items()}
        draft = ConfigDraft(**{name: single[name] for name in ("agent", "state", "access", "safety")})  # type: ignore[arg-type]
        self._buses(draft, self._named("buses", document))
        self._devices(draft, self._named("devices", document))
        draft.history_enabled = getattr(single["history"], "enabled", True)
        draft.stream_names, draft.streams = self._tables("streams", StreamConfig, document)
        draft.delegation_names, draft.delegations = self._tables("delegations", Delegation, document)
        draft.rule_names, draft.rules = self._tables("rules", Rule, document)
        _, draft.alerts = self._tables("alerts", Alert, document)
        self.problems += cross_checks(draft)
        if self.problems:
            return None
        return Config(
            path=self.path,
            **single,  # type: ignore[arg-type]
            buses=draft.buses,
            devices={name: device.config for name, device in draft.devices.items()},
            drivers={name: device.driver for name, device in draft.devices.items()},
            streams=draft.streams,
            delegations=draft.delegations,
            rules=draft.rules,
            alerts=draft.alerts,
            warnings=(*notes, *warnings(draft)),
        )

    def _rename_skills(self, document: dict[str, Any]) -> tuple[str, ...]:
        agent = document.get("agent")
        if not isinstance(agent, dict) or "skills" not in agent:
            return ()
        if "tags" in agent:
            self.problems.append("agent.skills is the old name of agent.tags and both are there: keep tags")
            del agent["skills"]
            return ()
        agent["tags"] = agent.pop("skills")
        return ("agent.skills is the old name of agent.tags: rename it",)

    def table(self, place: str, model: type[M], table: Any) -> M | None:
        if not isinstance(table, dict):
            self.problems.append(f"{place} = {show(table)} must be a table: write [{place}]")
            return None
        try:
            taken = model.model_validate(table, context=self._context)
            self.problems += _taken_for_boolean(place, table, taken)
            return taken
        except ValidationError as error:
            self.problems += sentences(error, place, table, model)
            return None

    def _tables(
        self, section: str, model: type[M], document: dict[str, Any]
    ) -> tuple[tuple[str, ...], dict[str, M]]:
        """The names that were written, and of their tables those that are right."""
        tables = self._named(section, document)
        made = {name: self.table(f"{section}.{name}", model, table) for name, table in tables.items()}
        return tuple(tables), {name: table for name, table in made.items() if table is not None}

    def _named(self, section: str, document: dict[str, Any]) -> dict[str, Any]:
        """The tables of a section whose names are right."""
        tables = document.get(section, {})
        if not isinstance(tables, dict):
            self.problems.append(f"{section} = {show(tables)} must hold tables: write [{section}.NAME]")
            return {}
        if len(tables) > _MANY[section]:
            self.problems.append(f"{section} has {len(tables)} tables: at most {_MANY[section]} are allowed")
            return {}
        for name in tables:
            if not _is_name(section, name):
                self.problems.append(
                    f'{section}."{name}" is no name: use up to {NAME_MAX} lower-case letters, digits and _, '
                    "beginning with a letter"
                )
        return {name: table for name, table in tables.items() if _is_name(section, name)}

    def _buses(self, draft: ConfigDraft, tables: dict[str, Any]) -> None:
        draft.bus_names = tuple(tables)
        for name, table in tables.items():
            place = f"buses.{name}"
            kind = table.get("kind") if isinstance(table, dict) else ""
            if kind is None:
                self.problems.append(f"{place}.kind is missing: add one of {', '.join(BUS_KINDS)}")
            elif isinstance(table, dict) and (not isinstance(kind, str) or kind not in BUS_KINDS):
                words = ", ".join(f'"{word}"' for word in BUS_KINDS)
                self.problems.append(f"{place}.kind = {show(kind)} must be one of {words}")
            elif bus := self.table(place, BUS_KINDS.get(kind, BaseModel), table):
                draft.buses[name] = cast(bus_config.BusConfig, bus)

    def _devices(self, draft: ConfigDraft, tables: dict[str, Any]) -> None:
        draft.device_names = tuple(tables)
        for name, table in tables.items():
            try:
                if device := self._device(name, table):
                    draft.devices[name] = device
            except ConfigError as error:
                self.problems += error.problems

    def _device(self, name: str, table: Any) -> DraftDevice | None:
        place = f"devices.{name}"
        if not isinstance(table, dict):
            self.problems.append(f"{place} = {show(table)} must be a table: write [{place}]")
            return None
        driver_name = table.get("driver")
        if not isinstance(driver_name, str):
            self.problems.append(
                f'{place}.driver is missing: add driver = "…", one of `device-agent drivers`'
            )
            return None
        try:
            driver = self._load_driver(driver_name)
        except ConfigError as error:
            raise ConfigError(f"{place}.{error}") from error
        if "driver" not in driver.Config.model_fields:
            table = {key: value for key, value in table.items() if key != "driver"}
        config = ask(place, driver_name, lambda: self.table(place, driver.Config, table))
        return describe(name, driver_name, driver, config) if config is not None else None


def _is_name(section: str, name: str) -> bool:
    if section == "streams" and name == "_default":
        return True
    return len(name) <= NAME_MAX and re.fullmatch(WORD, name) is not None
