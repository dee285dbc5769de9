"""Chips on I2C: who answers, and which of the installed drivers' chips it is.

Asked as `i2cdetect` asks (its addresses, and no write to what may be an EEPROM), and not at all: the
adapters of monitors and of a PC's mainboard, where a question can do harm; addresses that a kernel driver
holds; buses that a program has open. Only bytes that a driver's `identify` needs are written.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from device_agent.bus.i2c import I2cBus
from device_agent.discovery.results import DetectedChip, DetectedI2c
from device_agent.discovery.system import System
from device_agent.driver import Driver
from device_agent.errors import BusDenied, BusError, BusFaulted, BusGone, BusHeld, BusTimeout, DriverError

FIRST, LAST = 0x08, 0x77
# A driver for so many addresses says nothing by them: i2c-registers, or a chip that can be moved anywhere.
MANY = 64
# Monitors (DDC), graphics cards and PC mainboards; fe…04500 and fe…09500 are the HDMI ports of a Pi.
NOT_OURS = re.compile(
    r"SMBus (I801|PIIX4|AMD|nForce|Via)|i915|gmbus|nvidia|nvkm|amdgpu|radeon|DDC|DPDDC|DPMST|AUX|hdmi"
    r"|fe[0-9a-f]0[49]500\.i2c",
    re.IGNORECASE,
)

# Each further question would cost as much, and get no better answer.
STOPPING = (BusTimeout, BusDenied, BusGone, BusFaulted)

Drivers = Mapping[str, type[Driver[Any, Any]]]


def accepted(driver: type[Driver[Any, Any]]) -> frozenset[int]:
    """The addresses at which a driver's chip can be, as its own model has it."""
    field = driver.Config.model_fields.get("address")
    if field is None:
        return frozenset()
    fits = frozenset(address for address in range(FIRST, LAST + 1) if _takes(driver, address))
    if len(fits) <= MANY:
        return fits
    return frozenset({field.default} if isinstance(field.default, int) else ())


def _takes(driver: type[Driver[Any, Any]], address: int) -> bool:
    try:
        driver.Config.model_validate({"address": address})
    except ValidationError as error:
        return all(fault["loc"][:1] != ("address",) for fault in error.errors())
    return True


def buses(system: System, drivers: Drivers, busy: Mapping[str, str]) -> list[DetectedI2c]:
    """Every adapter with its chips. `busy` says by node who uses it."""
    i2c_drivers = {name: driver for name, driver in drivers.items() if driver.Bus.kind == "i2c"}
    places = {name: accepted(driver) for name, driver in i2c_drivers.items()}
    found = []
    for node in system.find("/dev/i2c-*"):
        number = node.rpartition("-")[2]
        adapter = system.text(f"/sys/bus/i2c/devices/i2c-{number}/name")
        if NOT_OURS.search(adapter):
            found.append(DetectedI2c(node, adapter, note="belongs to a monitor or the mainboard: not asked"))
        elif node in busy:
            found.append(DetectedI2c(node, adapter, note=f"in use by {busy[node]}: not asked"))
        else:
            found.append(_bus(system, node, adapter, i2c_drivers, places))
    return found


def _bus(
    system: System, node: str, adapter: str, drivers: Drivers, places: Mapping[str, frozenset[int]]
) -> DetectedI2c:
    held = _kernel_drivers(system, node.rpartition("-")[2])
    kernel = [DetectedChip(address, "kernel", name, "held by this driver of the kernel")
              for address, name in held.items()]  # fmt: skip
    try:
        bus = system.open_i2c(node)
    except BusError as error:
        return DetectedI2c(node, adapter, chips=tuple(kernel), note=_cause(error))
    try:
        chips, note = _chips(bus, held, drivers, places)
        together = sorted([*kernel, *chips], key=lambda chip: int(chip.place))
        return DetectedI2c(node, adapter, "i2c" if bus.plain else "smbus", tuple(together), note)
    finally:
        bus.close()


def _kernel_drivers(system: System, number: str) -> dict[int, str]:
    held = {}
    for path in system.find(f"/sys/bus/i2c/devices/{number}-*"):
        if driver := system.link(f"{path}/driver"):
            with suppress(ValueError):
                held[int(path.rpartition("-")[2], 16)] = driver
    return held


def _chips(
    bus: I2cBus, held: Mapping[int, str], drivers: Drivers, places: Mapping[str, frozenset[int]]
) -> tuple[list[DetectedChip], str]:
    chips = []
    for address in range(FIRST, LAST + 1):
        if address in held:
            continue
        try:
            if bus.present(address):
                chips.append(chip_at(bus, address, drivers, places))
        except BusHeld:
            chips.append(DetectedChip(address, "kernel", "", "held by the kernel"))
        except BusError as error:
            return chips, f"stopped at {address:#04x}: {_cause(error)}"
    return chips, ""


def chip_at(
    bus: I2cBus, address: int, drivers: Drivers, places: Mapping[str, frozenset[int]]
) -> DetectedChip:
    """Which chip answers at the address. Raises what ends the search on this bus."""
    names = sorted(
        (name for name in drivers if address in places[name]), key=lambda name: (len(places[name]), name)
    )
    if touchy := [name for name in names if drivers[name].obeys_any_write]:
        why = f"{' and '.join(touchy)} would obey any byte: not asked"
        return DetectedChip(address, "candidate", what=why, candidates=tuple(names))
    left = []
    for name in names:
        answer = ask(drivers[name].identify, bus, address)
        if answer:
            return DetectedChip(address, "identified", name, answer)
        if answer is not None:
            left.append(name)
    if left:
        return DetectedChip(address, "candidate", candidates=tuple(left), what="has no identity to read")
    ruled_out = f"is none of {', '.join(names)}" if names else "no driver for this address is installed"
    return DetectedChip(address, "unknown", what=ruled_out)


def ask(identify: Callable[..., str], bus: Any, place: int | str) -> str | None:
    """The driver's answer; "" where it cannot tell, None where it is another chip."""
    try:
        return identify(bus, place)
    except STOPPING:
        raise
    except BusError:
        return ""  # no answer, or a question that an adapter of SMBus alone cannot carry
    except DriverError:
        return None
    except Exception:  # noqa: BLE001 - foreign code: its fault must not end the scan
        return ""


def identified(drivers: Drivers, kind: str, bus: Any, places: Sequence[str]) -> list[DetectedChip]:
    """The same for buses that list who is there, such as 1-Wire."""
    fitting = {name: driver for name, driver in drivers.items() if driver.Bus.kind == kind}
    chips = []
    for place in places:
        answers = {name: ask(driver.identify, bus, place) for name, driver in fitting.items()}
        sure = next(((name, answer) for name, answer in answers.items() if answer), None)
        left = tuple(name for name, answer in answers.items() if answer == "")
        if sure is not None:
            chips.append(DetectedChip(place, "identified", *sure))
        else:
            state: Any = "candidate" if left else "unknown"
            chips.append(DetectedChip(place, state, candidates=left))
    return chips


def _cause(error: BusError) -> str:
    return " ".join(str(error).split())
