"""`device-agent scan`: buses, chips and ports with their stable names, and a configuration made from them."""

import argparse
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from device_agent.cli.common import Exit, config_path, print_json, styled
from device_agent.cli.running_daemon import daemon_answers
from device_agent.config import Config, load
from device_agent.discovery.compose import Answers, agent_name, compose
from device_agent.discovery.i2c import Drivers
from device_agent.discovery.results import DetectedChip, ScanResult
from device_agent.discovery.scan import daemon_buses, installed, scan
from device_agent.discovery.system import System
from device_agent.errors import AgentError

COLOURS = {"identified": "green", "candidate": "yellow", "unknown": "yellow", "kernel": "cyan"}


def register(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "scan",
        help="find buses, chips and ports",
        description="Find GPIO chips, I2C chips (by address and by what identifies them), SPI, 1-Wire, "
        "serial ports with their stable names, PWM, cameras, a local MQTT broker. Nothing is changed; what "
        "a running daemon or another program uses is not asked.",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--write", metavar="FILE", help="write a configuration of what was found")
    parser.add_argument("--force", action="store_true", help="overwrite FILE")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    found, drivers = find(args)
    if args.write:
        path = Path(args.write)
        write(
            path,
            compose(found, drivers, Answers(host_name(), state_directory=state_directory(path))),
            args.force,
        )
    if args.json:
        print_json(asdict(found))
        return Exit.DONE
    for line in lines(found):
        print(line)
    if args.write:
        print(f"\nwrote {args.write}: complete it, then device-agent --config {args.write} check")
    return Exit.DONE


def find(args: argparse.Namespace, system: System | None = None) -> tuple[ScanResult, Drivers]:
    """Everything that is there, without disturbing a daemon that runs."""
    drivers, notes = installed()
    config = running_daemon(args)
    return scan(system or System(), daemon_buses(config), drivers, notes), drivers


def running_daemon(args: argparse.Namespace) -> Config | None:
    """The configuration of a daemon that answers; None where none does.

    Raises ConfigError where one answers and its file does not say any more which buses are its.
    """
    file = config_path(args)
    return load(file) if daemon_answers(file) else None


def host_name() -> str:
    return agent_name(socket.gethostname())


def state_directory(path: Path) -> str:
    """The service's for a file in /etc or made by root, else a folder beside the file."""
    absolute = path.absolute()
    if os.geteuid() == 0 or absolute.is_relative_to("/etc"):
        return "/var/lib/device-agent"
    return str(absolute.parent / "device-agent-state")


def write(path: Path, text: str, force: bool) -> None:
    """A new file that everybody may read (there is no secret in it). Raises AgentError."""
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL)
    try:
        with open(os.open(path, flags, 0o644), "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o644)
    except FileExistsError as error:
        raise AgentError(
            f"{path} is there already: name another file, or add --force to overwrite it"
        ) from error
    except OSError as error:
        raise AgentError(f"{path} cannot be written ({error.strerror}): check path and rights") from error


# -- showing ------------------------------------------------------------------------------------------------


def lines(found: ScanResult) -> Iterator[str]:
    """What was found, for people."""
    yield f"{styled('board', 'bold')}  {found.board or 'unknown'}"
    yield from _gpio(found)
    for bus in found.i2c:
        speaks = {"i2c": "plain I2C", "smbus": "SMBus only", "": "not opened"}[bus.speaks]
        yield _head(f"I2C {bus.device}", f"{bus.adapter}, {speaks}")
        yield from (f"  {line}" for chip in bus.chips for line in _chip(chip))
        if bus.note:
            yield f"  {styled(bus.note, 'yellow')}"
        elif not bus.chips:
            yield "  nobody answers"
    if found.onewire:
        yield _head("1-Wire", "")
        yield from (f"  {line}" for chip in found.onewire for line in _chip(chip))
    yield from _serial(found)
    for title, things in (
        ("SPI", found.spi), ("PWM", found.pwm), ("camera", found.cameras), ("MQTT broker", found.brokers)
    ):  # fmt: skip
        for thing in things:
            yield _head(f"{title} {thing.device}", thing.what)
    for note in found.notes:
        yield f"{styled('note', 'yellow')}  {note}"


def _head(what: str, more: str) -> str:
    return f"{styled(what, 'bold')}  {more}".rstrip()


def _gpio(found: ScanResult) -> Iterator[str]:
    for chip in found.gpio:
        if chip.note:
            yield _head(f"GPIO {chip.device}", chip.note)
            continue
        named = sum(bool(line.name) for line in chip.lines)
        yield _head(f"GPIO {chip.device}", f"{chip.label}, {len(chip.lines)} lines, {named} with a name")
        for line in chip.lines:
            if line.consumer:
                yield f"  line {line.offset} {line.name}".rstrip() + f": held by {line.consumer}"


def _chip(chip: DetectedChip) -> Sequence[str]:
    place = f"{chip.place:#04x}" if isinstance(chip.place, int) else chip.place
    state = styled(chip.state, COLOURS[chip.state])
    match chip.state:
        case "identified":
            return [f"{place}  {state}  {chip.driver}  ({chip.what})"]
        case "kernel":
            return [f"{place}  {state}  {chip.driver or '?'}  ({chip.what})"]
        case "candidate":
            return [f"{place}  {state}  {' or '.join(chip.candidates)}  ({chip.what})"]
    return [f"{place}  {state}  {chip.what}"]


def _serial(found: ScanResult) -> Iterator[str]:
    for port in found.serial:
        usb = ""
        if port.vid is not None and port.pid is not None:
            serial = f" serial {port.serial}" if port.serial else ""
            usb = f"USB {port.vid:04x}:{port.pid:04x}{serial} at {port.location}"
        yield _head(f"serial {port.device}", ", ".join(filter(None, (port.product, usb, port.driver))))
        if port.stable:
            yield f"  {port.stable}"
        if port.holder:
            yield f"  in use by {port.holder}"
