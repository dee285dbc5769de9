"""Checks of what moves: safe values, limits, interlocks, conditions, the stop line, what the guard can reach.

Keys by point (calibration, dead bands, times) are checked here as well.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

from device_agent.bus.config import GpioBusConfig
from device_agent.config.calibration import units_of
from device_agent.config.draft import ConfigDraft, DraftDevice
from device_agent.config.explain import did_you_mean, show
from device_agent.config.types import NAME_MAX, WORD
from device_agent.driver import Actuator, Listener, Point, Within
from device_agent.records import is_number

# A larger calibration is a typing error, and doubles begin to lose whole numbers.
FACTOR_MAX = 1e12

# Kinds of bus that the guard can use.
GUARDED = ("gpio", "i2c", "serial", "mqtt")


def actuators_and_calibration(device: DraftDevice) -> Iterator[str]:
    """Every fault of one device that its own model cannot see."""
    yield from _limits_of_points(device)
    yield from _safe_values(device)
    yield from _interlocks(device)
    yield from _by_point(device)


def conditions(draft: ConfigDraft) -> Iterator[str]:
    """Every `only_while` that names what does not exist, or wants an impossible value."""
    for device in draft.devices.values():
        for other, points in getattr(device.config, "only_while", {}).items():
            place = f"devices.{device.name}.only_while.{other}"
            if other == device.name:
                yield f"{place} is the device itself: name another one"
            elif other not in draft.device_names:
                yield f"{place} is not declared: {did_you_mean(other, draft.device_names, 'add the device')}"
            elif other in draft.devices:
                yield from _condition(place, draft.devices[other], points)


def _condition(place: str, other: DraftDevice, points: Mapping[str, Any]) -> Iterator[str]:
    known = {point.name: point for point in other.points}
    if not points:
        yield f"{place} has no point: add one, or remove the table"
    for name, wanted in points.items():
        point = known.get(name)
        if point is None:
            hint = did_you_mean(name, known, f"use {', '.join(known) or 'another device'}")
            yield f"{place}.{name} is no point of {other.name}: {hint}"
        elif isinstance(wanted, Within):
            low, high = wanted.minimum, wanted.maximum
            if point.type not in ("number", "integer"):
                yield f"{place}.{name} has bounds, but is no number: write the value that it must have"
            elif low is None and high is None:
                yield f"{place}.{name} has no bound: add minimum, maximum or both"
            elif low is not None and high is not None and low > high:
                yield f"{place}.{name}: minimum and maximum are {low:g} and {high:g}: swap them"
        elif wish := _wrong_value(replace(point, minimum=None, maximum=None), wanted):
            yield f"{place}.{name} = {show(wanted)} {wish}, as it reads no other"


def _wrong_value(point: Point, value: Any) -> str:
    """Why a value cannot be written to a point; "" if it can. Bounds belong to numbers."""
    if point.type == "boolean":
        return "" if isinstance(value, bool) else "must be true or false"
    if point.type == "string":
        return "" if isinstance(value, str) else "must be text in quotes"
    if not is_number(value):
        return "must be a number"
    if point.type == "integer" and not isinstance(value, int):
        return "must be a whole number"
    if not math.isfinite(value):
        return "must be a finite number"
    if point.minimum is not None and value < point.minimum:
        return f"must be at least {point.minimum:g}"
    if point.maximum is not None and value > point.maximum:
        return f"must be at most {point.maximum:g}"
    return ""


def _limits_of_points(device: DraftDevice) -> Iterator[str]:
    for point in device.points:
        for low, high, words in (
            (point.minimum, point.maximum, "minimum and maximum"),
            (point.low, point.high, "low and high"),
        ):
            if low is not None and high is not None and low > high:
                place = f"devices.{device.name}.points.{point.name}"
                yield f"{place}: {words} are {low:g} and {high:g}: swap them"


def _safe_values(device: DraftDevice) -> Iterator[str]:
    if not device.writable:
        return
    if not issubclass(device.driver, Actuator):
        yield (
            f'devices.{device.name}: driver "{device.driver_name}" has writable points but is no Actuator: '
            "tell its author"
        )
        return
    for point in device.writable:
        place, value = _safe_place(device, point.name), device.safe.get(point.name)
        if value is None:
            yield f"{place} is missing: everything that moves needs a safe value; add it"
        elif wish := _wrong_value(point, value):
            yield f"{place} = {show(value)} {wish}, as point {point.name} takes no other"
    declared = getattr(device.config, "safe", None)
    if isinstance(declared, dict):
        yield from _unknown_points(device, "safe", declared, [point.name for point in device.writable])


def _safe_place(device: DraftDevice, point: str) -> str:
    """Where the person writes the safe value: beside the device's options, or in its table of points."""
    place = f"devices.{device.name}"
    if "safe" not in type(device.config).model_fields:
        return f"{place}.points.{point}.safe"
    several = isinstance(getattr(device.config, "safe", None), dict)
    return f"{place}.safe.{point}" if several else f"{place}.safe"


def _interlocks(device: DraftDevice) -> Iterator[str]:
    groups = getattr(device.config, "interlock", ())
    for position, group in enumerate(groups):
        place = f"devices.{device.name}.interlock.{position} = {show(group)}"
        if re.fullmatch(WORD, group) is None or len(group) > NAME_MAX:
            yield f"{place} is no name of a group: use lower-case letters, digits and _"
        elif group in groups[:position]:
            yield f"{place} is named twice: remove one"


def _by_point(device: DraftDevice) -> Iterator[str]:
    """`dead_band`, `scale` and the like are tables by point; only numbers can be calibrated."""
    place, config = f"devices.{device.name}", device.config
    numbers = [point.name for point in device.points if point.type in ("number", "integer")]
    band = config.dead_band
    banded = [*numbers, *(point.name for point in device.points if point.type == "boolean")]
    for key, table, known in (
        ("dead_band", band if isinstance(band, dict) else {}, banded),
        ("scale", config.scale, numbers),
        ("offset", config.offset, numbers),
    ):
        yield from _unknown_points(device, key, table, known)
        for point, number in table.items():
            if abs(number) > FACTOR_MAX:
                yield f"{place}.{key}.{point} = {number:g} must be between -{FACTOR_MAX:g} and {FACTOR_MAX:g}"
    for point, number in config.scale.items():
        if number == 0:
            yield f"{place}.scale.{point} = 0 makes every value 0: write another factor"
    for where, number in band.items() if isinstance(band, dict) else [("", band)]:
        if not 0 <= number <= FACTOR_MAX:
            yield f"{place}.dead_band{'.' if where else ''}{where} = {number:g} must be at least 0"
    yield from _unknown_points(device, "unit", units_of(config), numbers)
    if isinstance(config.description, Mapping):
        yield from _unknown_points(
            device, "description", config.description, [point.name for point in device.points]
        )
    yield from _tables(device, numbers)
    yield from _limits_in_time(device, numbers)


def _tables(device: DraftDevice, numbers: list[str]) -> Iterator[str]:
    config = device.config
    yield from _unknown_points(device, "calibration", config.calibration, numbers)
    for point, pairs in config.calibration.items():
        place = f"devices.{device.name}.calibration.{point}"
        if any(after[0] <= before[0] for before, after in pairwise(pairs)):
            yield f"{place}: the first numbers of its pairs must rise: put the pairs in order, each once"
        if any(abs(number) > FACTOR_MAX for pair in pairs for number in pair):
            yield f"{place}: its numbers must be between -{FACTOR_MAX:g} and {FACTOR_MAX:g}"
        if point in config.scale or point in config.offset:
            yield f"{place} stands beside `scale` or `offset` of that point: keep the one or the other"


def unnamed_quantities(device: DraftDevice) -> Iterator[str]:
    """A calibration that is more than a correction makes another quantity: 12 bar out of 4.5 V."""
    config = device.config
    if "points" in type(config).model_fields:
        return  # each has its unit beside its name
    slopes = {name: (config.scale[name], "scale") for name in config.scale}
    for name, pairs in config.calibration.items():
        slopes[name] = (pairs[-1][1] - pairs[0][1]) / (pairs[-1][0] - pairs[0][0]), "calibration"
    for point in device.points:
        slope, key = slopes.get(point.name, (1.0, ""))
        if not 0.5 <= slope <= 2 and point.name not in units_of(config):
            place = f"devices.{device.name}"
            yield (
                f'{place}.{key}.{point.name} multiplies by {slope:g}, and the unit is still "{point.unit}": '
                f'write {place}.unit.{point.name} = "bar", or whatever it is then, and its description'
            )


def _limits_in_time(device: DraftDevice, numbers: list[str]) -> Iterator[str]:
    """`stale_after_s` is for devices that send by themselves, `frozen_after_s` for measured numbers."""
    config, everything = device.config, [point.name for point in device.points]
    for key, limit, known in (
        ("stale_after_s", config.stale_after_s, everything),
        ("frozen_after_s", config.frozen_after_s, numbers),
    ):
        if isinstance(limit, dict):
            yield from _unknown_points(device, key, limit, known)
    if config.stale_after_s is not None and not issubclass(device.driver, Listener):
        yield (
            f'devices.{device.name}.stale_after_s: driver "{device.driver_name}" is asked for each reading, '
            "so none is old: remove it"
        )


def _unknown_points(
    device: DraftDevice, key: str, table: Mapping[str, Any], known: list[str]
) -> Iterator[str]:
    for name in table:
        if name not in known:
            hint = did_you_mean(name, known, f"use {', '.join(known) or 'none: remove it'}")
            yield f"devices.{device.name}.{key}.{name} is not such a point of this device: {hint}"


def stop_line(draft: ConfigDraft) -> Iterator[str]:
    """The emergency stop's line is a boolean point that is only read."""
    wanted = draft.safety.stop_device if draft.safety is not None else None
    if wanted is None or draft.safety is None:
        return
    place = f"safety.stop_device = {show(wanted)}"
    if wanted not in draft.device_names:
        yield f"{place} is not a device: {did_you_mean(wanted, draft.device_names, 'remove the key')}"
    elif wanted in draft.devices:
        points = {point.name: point for point in draft.devices[wanted].points}
        point = points.get(draft.safety.stop_point)
        known = ", ".join(name for name, one in points.items() if one.type == "boolean") or "none"
        if point is None or point.type != "boolean":
            yield (
                f"safety.stop_point = {show(draft.safety.stop_point)} is not a boolean point of {wanted}: "
                f"use one of {known}"
            )
        elif point.write:
            yield f"{place} is driven by the agent itself: name a device that is only read"
        bus = draft.buses.get(draft.devices[wanted].config.bus or "")
        if isinstance(bus, GpioBusConfig) and bus.backend == "gpiozero" and bus.pin_factory != "lgpio":
            yield (
                f'{place} is on pin factory "{bus.pin_factory}", which shows the line to nobody else, so the '
                f"stop would not work while the agent hangs: use buses.{draft.devices[wanted].config.bus}."
                'backend = "gpiod", or pin_factory = "lgpio"'
            )


def software_pulses(draft: ConfigDraft) -> Iterator[str]:
    """Pulses that the bus cannot make, or that end with the daemon at a value other than the safe one."""
    for device, bus in _in_software(draft):
        line, pins = getattr(device.config, "line", None), f"buses.{device.config.bus}"
        wish = f'name its hardware channel in {pins}.pwm, such as {{ {line} = "pwmchip0/0" }}'
        if bus.backend == "gpiod":
            place = f"devices.{device.name}.line = {line}"
            yield f'{place} can only be switched on and off: {wish}, or use {pins}.backend = "gpiozero"'
            continue
        duty = device.safe.get("duty")
        if device.driver.pulses == "share" and duty not in (0, 1):
            yield (
                f"devices.{device.name}.safe: pulses made in software end with the agent, so a duty of "
                f"{duty} could not be kept when it is killed: make it 0 or 1, or {wish}"
            )


def unguarded(draft: ConfigDraft) -> Iterator[str]:
    """Actuators that the guard cannot bring to their safe value when the daemon is killed."""
    for device in draft.devices.values():
        if not (issubclass(device.driver, Actuator) and device.writable):
            continue
        kind = device.driver.Bus.kind
        if kind not in GUARDED:
            yield (
                f"devices.{device.name} stays as it is when the agent is killed: the guard cannot use a bus "
                f'of kind "{kind}"; use hardware that goes safe by itself'
            )
    stop = draft.devices.get(draft.safety.stop_device or "") if draft.safety is not None else None
    if stop is not None and stop.driver.Bus.kind != "gpio":
        yield (
            f"devices.{stop.name} stops nothing while the agent hangs: the guard cannot watch a bus of kind "
            f'"{stop.driver.Bus.kind}"; wire the stop to a line of a GPIO chip'
        )
    for device, bus in _in_software(draft):
        if bus.backend == "gpiozero" and device.driver.pulses == "position":
            yield (
                f"devices.{device.name} goes to no position when the agent is killed: pulses made in "
                f"software end with it, and the guard keeps the line off; name a hardware channel in "
                f"buses.{device.config.bus}.pwm"
            )


def _in_software(draft: ConfigDraft) -> Iterator[tuple[DraftDevice, GpioBusConfig]]:
    for device in draft.devices.values():
        bus = draft.buses.get(device.config.bus or "")
        line = str(getattr(device.config, "line", ""))
        if device.driver.pulses and isinstance(bus, GpioBusConfig) and line not in bus.pwm:
            yield device, bus
