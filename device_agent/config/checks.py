"""Checks between tables. Plain functions that yield one sentence for each fault; all of them run.

Buses and devices are here, actuators in `safety_checks`; streams, access and delegations have files too.
"""

import os
import re
from collections.abc import Iterator, Mapping
from itertools import chain

from device_agent.bus.config import (
    BusConfig,
    ClearConfig,
    GpioBusConfig,
    I2cBusConfig,
    MqttBusConfig,
    OneWireBusConfig,
    PowerConfig,
    SerialBusConfig,
    SpiBusConfig,
)
from device_agent.config.access_checks import access
from device_agent.config.automation_checks import automation
from device_agent.config.calibration import units_of
from device_agent.config.delegation_checks import delegation_warnings, delegations
from device_agent.config.draft import ConfigDraft, DraftDevice
from device_agent.config.explain import did_you_mean, show
from device_agent.config.safety_checks import (
    actuators_and_calibration,
    conditions,
    software_pulses,
    stop_line,
    unguarded,
    unnamed_quantities,
)
from device_agent.config.stream_checks import stream_warnings, streams
from device_agent.config.types import NAME_MAX, WORD
from device_agent.config.unit_codes import unit_code
from device_agent.driver import Sensor
from device_agent.schema import BaseModel
from device_agent.text.pattern import Pattern

# A Unix socket's address takes 108 bytes with its closing zero.
SOCKET_PATH_MAX_BYTES = 107
POINTS_MAX = 128
# Share of a bus's time that readings may take; the rest is for commands and faults.
BUSY_MAX = 0.8

# Board GPIO whose line names count as the lines do: "GPIO17" is line 17.
_NUMBERED_CHIP = re.compile(r"pinctrl-(bcm2\d+|rp1)")


def cross_checks(draft: ConfigDraft) -> Iterator[str]:
    """Every fault between tables, one sentence each."""
    for device in draft.devices.values():
        yield from _device_bus(draft, device)
        yield from _points(device)
        yield from actuators_and_calibration(device)
    yield from _recovery(draft)
    yield from _one_owner_per_claim(draft)
    yield from _former_names(draft)
    yield from _one_bus_per_medium(draft)
    yield from streams(draft)
    yield from access(draft)
    yield from stop_line(draft)
    yield from conditions(draft)
    yield from software_pulses(draft)
    yield from delegations(draft)
    yield from automation(draft)
    yield from _socket_path(draft)


def _slow_patterns(draft: ConfigDraft) -> Iterator[str]:
    """Whoever sends lines or messages could stand the event loop still; `text.Pattern` gives up instead."""
    for name, device in draft.devices.items():
        for place, pattern in _patterns(f"devices.{name}", device.config):
            if text := Pattern(pattern).slow_on():
                yield (
                    f"{place} takes too long on a text such as {text[:10]!r}… and is given up there; "
                    "let no repetition stand inside another, as in (a+)+"
                )


def _patterns(place: str, value: object) -> Iterator[tuple[str, str]]:
    """The options whose schema says `format: regex`, however deep they are."""
    if isinstance(value, BaseModel):
        for name, one in value:
            said = type(value).model_fields[name].json_schema_extra
            if isinstance(one, str) and isinstance(said, Mapping) and said.get("format") == "regex":
                yield f"{place}.{name}", one
            yield from _patterns(f"{place}.{name}", one)
    elif isinstance(value, Mapping):
        for name, one in value.items():
            yield from _patterns(f"{place}.{name}", one)
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from _patterns(f"{place}[{number}]", one)


def warnings(draft: ConfigDraft) -> Iterator[str]:
    """What is allowed and probably not meant."""
    yield from stream_warnings(draft)
    yield from delegation_warnings(draft)
    used = {device.config.bus for device in draft.devices.values()}
    used |= {pins for bus in draft.buses.values() for _, pins, _ in _recovery_lines(bus)}
    for name in draft.buses.keys() - used:
        yield f"buses.{name} has no device: remove it, or name it in one"
    if not draft.devices:
        yield "there is no device: the agent has nothing to read; add [devices.NAME]"
    yield from _lonely_interlocks(draft)
    yield from _slow_patterns(draft)
    yield from _busy(draft)
    yield from unguarded(draft)
    for device in draft.devices.values():
        yield from unnamed_quantities(device)
    if draft.access is not None:
        for device in draft.devices.values():
            if device.drivable and not draft.access.callers("drive", device.name):
                yield f"devices.{device.name} can be driven by nobody: name callers in access.drive"


def _device_bus(draft: ConfigDraft, device: DraftDevice) -> Iterator[str]:
    place, wanted, bus = f"devices.{device.name}.bus", device.driver.Bus.kind, device.config.bus
    if wanted == "none":
        if bus is not None:
            yield f'{place} = {show(bus)}: driver "{device.driver_name}" needs no bus; remove the key'
        return
    fitting = [name for name, config in draft.buses.items() if config.kind == wanted]
    choice = f"one of {', '.join(fitting)}" if fitting else f'[buses.NAME] with kind = "{wanted}"'
    if bus is None:
        yield f'{place} is missing: driver "{device.driver_name}" needs one of kind "{wanted}"; add {choice}'
    elif bus not in draft.bus_names:
        yield f"{place} = {show(bus)} is not declared: {did_you_mean(bus, draft.bus_names, f'add {choice}')}"
    elif bus in draft.buses and wanted and draft.buses[bus].kind != wanted:
        yield (
            f'{place} = {show(bus)} is of kind "{draft.buses[bus].kind}", but driver "{device.driver_name}" '
            f'needs "{wanted}": name {choice}'
        )


def _former_names(draft: ConfigDraft) -> Iterator[str]:
    owners: dict[str, str] = {}
    for device in draft.devices.values():
        for name in device.config.formerly:
            place = f"devices.{device.name}.formerly names {show(name)}"
            if name in draft.devices:
                yield f"{place}, which is a device of its own: remove it"
            elif owners.setdefault(name, device.name) != device.name:
                yield f"{place}, as devices.{owners[name]} does: its history can be one device's"


def _points(device: DraftDevice) -> Iterator[str]:
    place = f"devices.{device.name}"
    names = [point.name for point in device.points]
    if len(names) > POINTS_MAX:
        yield f"{place} has {len(names)} points: at most {POINTS_MAX} are allowed"
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"{place} has two points {show(name)}: name each once"
    for name in names:
        if re.fullmatch(WORD, name) is None or len(name) > NAME_MAX:
            yield f"{place}: {show(name)} is no name of a point: use lower-case letters, digits and _"
    units = {f"points.{point.name}.unit": point.unit for point in device.points}
    for key, unit in (
        units | {f"unit.{name}": unit for name, unit in units_of(device.config).items()}
    ).items():
        try:
            unit_code(unit)
        except ValueError as error:
            yield f"{place}.{key} = {show(unit)} {error}"


def _recovery_lines(bus: BusConfig) -> Iterator[tuple[str, str, int | str]]:
    """Each GPIO line that a bus's recovery takes: its key in the table, its bus, the line."""
    clear: ClearConfig | None = getattr(bus, "clear", None)
    power: PowerConfig | None = getattr(bus, "power", None)
    if clear is not None:
        yield "clear.scl", clear.bus, clear.scl
        yield "clear.sda", clear.bus, clear.sda
    if power is not None:
        yield "power.line", power.bus, power.line


def _recovery(draft: ConfigDraft) -> Iterator[str]:
    """The lines by which a bus is recovered belong to a declared GPIO bus."""
    for name, bus in draft.buses.items():
        for key in ("clear", "power"):
            lines = getattr(bus, key, None)
            if lines is None:
                continue
            place = f"buses.{name}.{key}.bus = {show(lines.bus)}"
            if lines.bus not in draft.bus_names:
                yield f'{place} is not declared: add [buses.{lines.bus}] with kind = "gpio"'
            elif lines.bus in draft.buses and draft.buses[lines.bus].kind != "gpio":
                yield f'{place} is of kind "{draft.buses[lines.bus].kind}": name one of kind "gpio"'


def _one_owner_per_claim(draft: ConfigDraft) -> Iterator[str]:
    owners: dict[tuple[str, str], str] = {}
    for name, config in draft.buses.items():
        for key, pins, line in _recovery_lines(config):
            if pins in draft.buses:
                claim, place = _same_line(draft.buses[pins], f"line {line}"), f"buses.{name}.{key}"
                if (owner := owners.setdefault((pins, claim), place)) != place:
                    yield f"{place} and {owner} both use {claim} of bus {pins}: give one another"
    tenants: dict[str, list[DraftDevice]] = {}
    for device in draft.devices.values():
        bus = device.config.bus
        if bus not in draft.buses:
            continue
        if draft.buses[bus].kind == "serial":
            tenants.setdefault(bus, []).append(device)
        for claim in dict.fromkeys(_same_line(draft.buses[bus], claim) for claim in device.claims):
            place = f"devices.{device.name}"
            owner = owners.setdefault((bus, claim), place)
            if owner != place and claim != "port":
                yield f"{place} and {owner} both use {claim} of bus {bus}: give one another"
    for bus, devices in tenants.items():
        # Units with addresses of their own (Modbus) share a port; everything else wants it alone.
        if len(devices) > 1 and not all(device.claims and "port" not in device.claims for device in devices):
            names = " and ".join(f"devices.{device.name}" for device in devices)
            yield f"{names} share the port of bus {bus}: a port belongs to one device; remove the others"


def _same_line(bus: BusConfig, claim: str) -> str:
    numbered = isinstance(bus, GpioBusConfig) and (
        bus.backend == "gpiozero" or _NUMBERED_CHIP.match(bus.chip) is not None
    )
    return re.sub(r"^line GPIO(\d+)$", r"line \1", claim) if numbered else claim


def _one_bus_per_medium(draft: ConfigDraft) -> Iterator[str]:
    owners: dict[tuple[str, ...], str] = {}
    for name, bus in draft.buses.items():
        medium = _medium(bus)
        if medium is None:
            continue
        owner = owners.setdefault(medium, name)
        if owner != name:
            yield f"buses.{name} and buses.{owner} are both {medium[-1]}: keep one and name it in all devices"


def _medium(bus: BusConfig) -> tuple[str, ...] | None:
    """What the bus owns alone; None where several may have the same."""
    match bus:
        case I2cBusConfig():
            return ("i2c", os.path.normpath(bus.device).removeprefix("/dev/"))
        case GpioBusConfig():
            return ("gpio", os.path.normpath(bus.chip).removeprefix("/dev/"))
        case SerialBusConfig():
            if isinstance(bus.port, str):
                return ("serial", os.path.normpath(bus.port))
            port = bus.port
            return (
                "serial",
                f"USB {port.vid:04x}:{port.pid:04x} {port.serial or ''} {port.location or ''}".strip(),
            )
        case SpiBusConfig():
            return ("spi", os.path.normpath(bus.device).removeprefix("/dev/"))
        case OneWireBusConfig():
            return ("w1", os.path.normpath(bus.directory))
        case MqttBusConfig():
            # A broker serves many, but a second connection of the same client id throws out the first.
            if bus.client_id is None:
                return None
            return ("mqtt", f"client {bus.client_id} of {bus.host}:{bus.port}")


def _socket_path(draft: ConfigDraft) -> Iterator[str]:
    if draft.state is not None:
        path = draft.state.runtime_directory / "control.sock"
        if len(os.fsencode(path)) > SOCKET_PATH_MAX_BYTES:
            yield (
                f"state.runtime_directory = {show(str(path.parent))} is too long for a socket: use at "
                f"most {SOCKET_PATH_MAX_BYTES - len('/control.sock')} bytes"
            )


def _busy(draft: ConfigDraft) -> Iterator[str]:
    """A bus that has more to do than there is time: readings come late, and nobody says why."""
    for name, bus in draft.buses.items():
        times = {
            device.name: (
                device.driver.reading_s(device.config, bus),
                device.config.every_s or device.driver.default_every_s or 0.0,
            )
            for device in draft.devices.values()
            if device.config.bus == name and issubclass(device.driver, Sensor) and not device.driver.on_demand
        }
        share = sum(takes_s / every_s for takes_s, every_s in times.values() if every_s)
        if share > BUSY_MAX:
            each = ", ".join(f"{one} {s:.2g} s every {p:g} s" for one, (s, p) in times.items() if s)
            yield (
                f"buses.{name} is kept busy for {share:.0%} of the time ({each}): raise their `every_s`, or "
                "read less of them, or read it faster"
            )


def _lonely_interlocks(draft: ConfigDraft) -> Iterator[str]:
    groups = list(
        chain.from_iterable(getattr(device.config, "interlock", ()) for device in draft.devices.values())
    )
    for device in draft.devices.values():
        for group in getattr(device.config, "interlock", ()):
            if groups.count(group) == 1:
                place = f"devices.{device.name}.interlock"
                yield f"{place} names {show(group)}, which no other device does: it locks nothing"
