"""A configuration from what was found: what is sure is written, what a person must decide is a comment."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from pydantic import ValidationError

from device_agent.discovery.i2c import Drivers
from device_agent.discovery.results import DetectedChip, DetectedPort, ScanResult

# The chip of a Raspberry Pi's header, by the labels it has had.
HEADER = re.compile(r"pinctrl-(bcm2|rp1)")
USUAL_CHIP = "pinctrl-bcm2711"
GENERATIONS = "pinctrl-bcm2835 up to Pi 3, pinctrl-bcm2711 Pi 4, pinctrl-rp1 Pi 5"
LINES = "up to Pi 4 lines 12 and 18 are channel 0, 13 and 19 channel 1; Pi 5: 12, 13, 18, 19 are 0 to 3"


@dataclass(frozen=True, slots=True)
class Answers:
    """What only a person knows; the defaults make a private agent without drive access."""

    name: str
    display_name: str = ""
    description: str = ""
    organization: str = ""
    tags: tuple[str, ...] = ()
    listing: str = "private"
    read: tuple[str, ...] = ("anyone",)
    drive: tuple[str, ...] = ()
    state_directory: str = "/var/lib/device-agent"
    only: tuple[str, ...] | None = None
    """Names of the found devices to take; None: all."""
    relays: tuple[str, ...] = ()
    """GPIO lines that switch something, by number."""
    relays_low: bool = True
    """Whether they switch on at a low level."""
    buttons: tuple[str, ...] = ()
    """GPIO lines with a contact to ground."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A device that was identified, with its bus."""

    name: str
    driver: str
    bus: str
    """"" for a device without a bus."""
    lines: tuple[str, ...]
    what: str = ""


def proposals(found: ScanResult, drivers: Drivers) -> list[Proposal]:
    """The devices that need no decision: identified sensors, and the board."""
    names: set[str] = set()
    devices = []
    for bus in found.i2c:
        for chip in bus.chips:
            if chip.state == "identified" and not _decisions(drivers, chip.driver, chip.place):
                lines = (f"address = {chip.place:#04x}",)
                name = _free(chip.driver, names)
                devices.append(Proposal(name, chip.driver, i2c_name(bus.device), lines, chip.what))
    for chip in found.onewire:
        if chip.state == "identified":
            name = _free(chip.driver, names)
            devices.append(Proposal(name, chip.driver, "w1", (f'id = "{chip.place}"',), chip.what))
    if "host" in drivers:
        what = "the board itself: load, memory, temperature, supply"
        devices.append(Proposal("host", "host", "", ("every_s = 60",), what))
    return devices


def compose(found: ScanResult, drivers: Drivers, answers: Answers) -> str:
    """The text of a configuration that passes `check`."""
    devices = [one for one in proposals(found, drivers) if answers.only is None or one.name in answers.only]
    used = {one.bus for one in devices}
    blocks = [_head(found), _agent(answers), *_i2c_buses(found, used), *_w1_bus(used)]
    blocks += [_device(one) for one in devices]
    taken = {one.name for one in devices}
    blocks += _undecided(found, drivers, used, taken)
    blocks += _pins(found, answers)
    wired = [f"button_{line}" for line in answers.buttons] + [f"relay_{line}" for line in answers.relays]
    blocks.append(_stream([*(one.name for one in devices), *wired], drives=bool(answers.relays)))
    blocks.append(_access(answers))
    return "\n\n".join(blocks) + "\n"


# -- parts ----------------------------------------------------------------------------------------------


def _head(found: ScanResult) -> str:
    board = f" on {_plain(found.board)}" if found.board else ""
    return (
        f"## Made by device-agent{board}. What stands behind a # waits for your decision: take the # away\n"
        "## and complete it, then run `device-agent check`."
    )


def _agent(answers: Answers) -> str:
    lines = ["[agent]", f"name = {toml(answers.name)}"]
    for key in ("display_name", "description", "organization"):
        if value := getattr(answers, key):
            lines.append(f"{key} = {toml(value)}")
    if answers.tags:
        lines.append(f"tags = [{', '.join(map(toml, answers.tags))}]")
    lines += ["", "[network]", f"listing = {toml(answers.listing)}"]
    return "\n".join([*lines, "", "[state]", f"directory = {toml(answers.state_directory)}"])


def _i2c_buses(found: ScanResult, used: set[str]) -> list[str]:
    return [
        f'[buses.{i2c_name(bus.device)}]            # {_plain(bus.adapter)}\nkind = "i2c"\n'
        f'device = "{bus.device}"'
        for bus in found.i2c
        if i2c_name(bus.device) in used
    ]


def _w1_bus(used: set[str]) -> list[str]:
    return ['[buses.w1]\nkind = "w1"'] if "w1" in used else []


def _device(one: Proposal) -> str:
    lines = [f"[devices.{one.name}]" + (f"            # {_plain(one.what)}" if one.what else "")]
    lines.append(f'driver = "{one.driver}"')
    if one.bus:
        lines.append(f'bus = "{one.bus}"')
    return "\n".join([*lines, *one.lines])


def _stream(devices: Sequence[str], *, drives: bool) -> str:
    if not devices:
        return '# [streams.live]\n# direction = "outbound"\n# devices = []'
    names = ", ".join(f'"{name}"' for name in devices)
    direction = 'direction = "outbound"     # "bidirectional": callers can drive what is in it'
    direction = 'direction = "bidirectional"' if drives else direction
    return f"[streams.live]\n{direction}\ndevices = [{names}]"


def _access(answers: Answers) -> str:
    read = '"anyone"' if answers.read == ("anyone",) else f"[{', '.join(map(toml, answers.read))}]"
    lines = ["[access]", f"read = {read}"]
    if answers.drive:
        lines.append(f"drive = [{', '.join(map(toml, answers.drive))}]")
    else:
        lines.append('# drive = ["org:org_123", "user:user_9"]     # nobody drives until it is written')
    return "\n".join(lines)


# -- what a person must decide -----------------------------------------------------------------------------


def _undecided(found: ScanResult, drivers: Drivers, used: set[str], taken: set[str]) -> list[str]:
    blocks: list[str] = []
    for bus in found.i2c:
        name = i2c_name(bus.device)
        chips = [text for chip in bus.chips for text in _chip(chip, name, drivers, taken)]
        if chips and name not in used:
            blocks.append(_commented([f"[buses.{name}]", 'kind = "i2c"', f'device = "{bus.device}"']))
        blocks += chips
    blocks += [block for number, port in enumerate(found.serial, 1) for block in _port(port, number)]
    for thing in found.spi:
        name = re.sub(r"\W", "_", thing.device.removeprefix("/dev/spidev"))
        text = [f"[buses.spi{name}]", 'kind = "spi"', f'device = "{thing.device}"', ""]
        text += ["[devices.adc]", 'driver = "mcp3008"', f'bus = "spi{name}"']
        blocks.append(_commented(text))
    if found.brokers:
        blocks.append(_commented(["[buses.broker]", 'kind = "mqtt"', 'host = "127.0.0.1"']))
    return blocks


def _chip(chip: DetectedChip, bus: str, drivers: Drivers, taken: set[str]) -> Iterable[str]:
    if chip.state == "identified" and _decisions(drivers, chip.driver, chip.place):
        yield _one_chip(chip, chip.driver, bus, drivers, taken, chip.what)
    elif chip.state == "candidate":
        choice = " or ".join(chip.candidates)
        for number, driver in enumerate(chip.candidates):
            why = f"something answers at {chip.place:#04x}: {choice}" if number == 0 else "or"
            yield _one_chip(chip, driver, bus, drivers, taken, why)


def _one_chip(chip: DetectedChip, driver: str, bus: str, drivers: Drivers, taken: set[str], why: str) -> str:
    name = _free(driver, taken)
    lines = [f"# {why}", f"[devices.{name}]", f'driver = "{driver}"', f'bus = "{bus}"']
    lines.append(f"address = {chip.place:#04x}")
    lines += [f"{key} =             # {why}" for key, why in _decisions(drivers, driver, chip.place).items()]
    return _commented(lines)


def _port(port: DetectedPort, number: int) -> Iterable[str]:
    name = f"port{number}"
    if port.vid is not None and port.pid is not None:
        which = f", serial = {toml(port.serial)}" if port.serial else f', location = "{port.location}"'
        place = f"{{ vid = {port.vid:#06x}, pid = {port.pid:#06x}{which} }}"
    else:
        place = toml(port.stable or port.device)
    what = " ".join(
        filter(None, (port.device, port.product, f"in use by {port.holder}" if port.holder else ""))
    )
    lines = [f"# {what}", f"[buses.{name}]", 'kind = "serial"', f"port = {place}", "baud = 9600", ""]
    lines += [f"[devices.on_{name}]", 'driver = "serial-lines"     # or modbus-rtu, nmea-gps, pms5003 …']
    yield _commented([*lines, f'bus = "{name}"'])


def _pins(found: ScanResult, answers: Answers) -> list[str]:
    """The lines that were answered; where none were, an example of each behind a #."""
    wired = answers.relays or answers.buttons
    if not found.gpio and not wired:
        return []
    named = [chip for chip in found.gpio if chip.label]
    chip = next((one for one in named if HEADER.match(one.label)), next(iter(named or found.gpio), None))
    place = USUAL_CHIP
    if chip is not None:
        alone = chip.label and sum(one.label == chip.label for one in named) == 1
        place = chip.label if alone else chip.device
    bus = ["[buses.pins]", 'kind = "gpio"', f"chip = {toml(place)}     # {GENERATIONS}"]
    for thing in found.pwm:
        pwm = f"pwm = {{ 18 = {toml(f'{thing.device}/0')} }}     # {LINES}"
        bus.append(f"# {pwm}" if wired else pwm)
    if not wired:
        example = replace(answers, relays_low=True)
        return [_commented([*bus, "", *_button("door", "17"), "", *_relay("relay", "27", example)])]
    blocks = [bus, *(_button(f"button_{line}", line) for line in answers.buttons)]
    blocks += [_relay(f"relay_{line}", line, answers) for line in answers.relays]
    return ["\n".join(block) for block in blocks]


def _button(name: str, line: str) -> list[str]:
    head = [f"[devices.{name}]", 'driver = "gpio-input"', 'bus = "pins"', f"line = {line}"]
    return [
        *head,
        'bias = "pull-up"',
        "active_low = true          # a contact to ground",
        "debounce_s = 0.02",
    ]


def _relay(name: str, line: str, answers: Answers) -> list[str]:
    low = str(answers.relays_low).lower()
    head = [f"[devices.{name}]", 'driver = "gpio-output"', 'bus = "pins"', f"line = {line}"]
    head.append(f"active_low = {low:<5}         # most relay boards switch on at a low level")
    limit = "max_on_s = 600             # and after ten minutes in any case"
    return [*head, "safe = false               # where it goes when in doubt", limit]


def _commented(lines: Sequence[str]) -> str:
    return "\n".join(f"#{line}" if line.startswith("#") else f"# {line}".rstrip() for line in lines)


# -- words --------------------------------------------------------------------------------------------------


def toml(text: str) -> str:
    """A TOML basic string: JSON's, but for what lies beyond the basic plane and DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def i2c_name(device: str) -> str:
    return f"i2c{re.sub(r'[^0-9a-z]', '_', device.rpartition('-')[2].lower())}"


def agent_name(text: str) -> str:
    """A name of an agent from any text, such as a host name."""
    return re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_")[:52] or "device"


def _free(driver: str, taken: set[str]) -> str:
    base = re.sub(r"[^a-z0-9_]", "_", driver.lower())
    name, number = base, 2
    while name in taken:
        name, number = f"{base}_{number}", number + 1
    taken.add(name)
    return name


def _plain(text: str) -> str:
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _decisions(drivers: Drivers, name: str, place: int | str) -> dict[str, str]:
    """The options that a person has to write before this driver can be used there, with what they mean."""
    model = drivers[name].Config
    try:
        model.model_validate({"bus": "it", "address": place})
    except ValidationError as error:
        missing = [str(fault["loc"][0]) for fault in error.errors() if fault["loc"]]
        # What only a validator of the whole asks for has no place of its own.
        if not missing:
            missing = [key for key in ("inputs", "outputs", "safe") if key in model.model_fields]
        return {key: " ".join((model.model_fields[key].description or "").split()) for key in missing}
    return {}
