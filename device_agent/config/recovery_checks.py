"""Checks of the lines by which a bus is recovered: they belong to a declared GPIO bus."""

from collections.abc import Iterator

from device_agent.bus.config import BusConfig, ClearConfig, PowerConfig
from device_agent.config.draft import ConfigDraft
from device_agent.config.explain import show


def recovery_lines(bus: BusConfig) -> Iterator[tuple[str, str, int | str]]:
    """Each GPIO line that a bus's recovery takes: its key in the table, its bus, the line."""
    clear: ClearConfig | None = getattr(bus, "clear", None)
    power: PowerConfig | None = getattr(bus, "power", None)
    if clear is not None:
        yield "clear.scl", clear.bus, clear.scl
        yield "clear.sda", clear.bus, clear.sda
    if power is not None:
        yield "power.line", power.bus, power.line


def recovery(draft: ConfigDraft) -> Iterator[str]:
    """Every fault of these tables that their models cannot see."""
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
