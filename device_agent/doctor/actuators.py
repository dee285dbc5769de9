"""What only wiring can do for an actuator's safety, by the kind of its bus: asked of a person.

Answers are kept in the state directory under a hash of the question: after a change it is asked again.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device_agent.config import Config
from device_agent.doctor.finding import Finding, ok
from device_agent.store.files import write_atomically

FILE = "doctor.json"

Ask = Callable[[str], bool | None]
"""A question to the person: yes, no, or no answer."""


@dataclass(frozen=True, slots=True)
class SafetyQuestion:
    """`text` is answered with yes when all is well."""

    key: str
    """Changes with what the question is about."""
    device: str
    text: str
    why: str
    remedy: str


def questions(config: Config) -> list[SafetyQuestion]:
    """One for each device that has a safe state."""
    asked = []
    for device, options in config.devices.items():
        safe = config.safe(device)
        if not safe:
            continue
        bus = config.buses.get(options.bus or "")
        kind = bus.kind if bus is not None else "none"
        claims = [claim for claim in config.drivers[device].claims(options) if claim != "port"]
        place = ", ".join(claims) or f"bus {options.bus}"
        template = _QUESTIONS.get(kind)
        if template is None:
            continue
        values = ", ".join(f"{point} = {json.dumps(value)}" for point, value in safe.items())
        level = _level(safe, options) if kind == "gpio" else ""
        text, why, remedy = (part.format(place=place, values=values, level=level) for part in template)
        remedy = RESISTORS.get(level, remedy) if kind == "gpio" else remedy
        about = json.dumps([device, kind, options.bus, place, values, level, text], sort_keys=True)
        asked.append(
            SafetyQuestion(hashlib.sha256(about.encode()).hexdigest()[:16], device, text, why, remedy)
        )
    return asked


def _level(safe: Mapping[str, Any], options: Any) -> str:
    """The physical level that is safe, where it is one."""
    values = list(safe.values())
    low = bool(getattr(options, "active_low", False))
    if len(values) == 1 and isinstance(values[0], bool):
        return "high" if values[0] is not low else "low"
    return "low" if values and not any(values) and not low else "safe"


RESISTORS = {"low": "10 kOhm from the pin to ground", "high": "10 kOhm from the pin to 3.3 V"}

_QUESTIONS = {
    "gpio": (
        "Does a resistor hold {place} at its {level} level while nobody drives the pin?",
        "while the board boots, after a kernel panic and without power nobody drives the pin: it floats",
        "10 kOhm from the pin to ground (safe level low) or to 3.3 V (safe level high)",
    ),
    "i2c": (
        "Does something reset the chip of {place} when the processor is dead (RESET, or supply)?",
        "a chip on I2C keeps its last level when the processor or the wire dies; nobody can tell it {values}",
        "wire its RESET (or its supply) to the board's reset; switch on the hardware watchdog; resistors "
        "for the time in which its pins are inputs",
    ),
    "serial": (
        "Does the far end of {place} go to its safe state by itself when it hears nothing for a while?",
        "a cut cable or a dead processor cannot send {values}",
        "set the instrument's own communication time-out (fail-safe) and try it: pull the plug",
    ),
    "mqtt": (
        "Does the device behind the broker ({place}) go to its safe state by itself when it hears nothing?",
        "without broker, Wi-Fi or processor nobody can send {values}",
        "set a countdown or power-on state in the device itself (auto-off), and try it: stop the broker",
    ),
    "spi": (
        "Does something reset the chip of {place} when the processor is dead?",
        "a chip on SPI keeps its last value when the processor or the wire dies",
        "wire its reset to the board's reset; switch on the hardware watchdog",
    ),
}


def check(config: Config, ask: Ask | None) -> Iterator[Finding]:
    """A finding for each question. `ask` puts those without an answer to a person; None: no terminal."""
    path = config.state.directory / FILE
    answers = load(path)
    changed = False
    for question in questions(config):
        answer = answers.get(question.key)
        if answer is not True and ask is not None:
            said = ask(f"devices.{question.device}: {question.text}")
            if said is not None:
                answers[question.key], answer, changed = said, said, True
        where = f"devices.{question.device}"
        if answer is True:
            yield ok(f"you said yes: {question.text}", where)
        elif answer is False:
            yield Finding("problem", f"you said no: {question.text}", where, question.why, question.remedy)
        else:
            yield Finding("question", question.text, where, question.why, question.remedy)
    if changed and not save(path, answers):
        why = "the same will be asked again"
        remedy = "run device-agent doctor as the user of the daemon, or with sudo"
        yield Finding("note", "the answers could not be kept", str(path), why, remedy)


def load(path: Path) -> dict[str, bool]:
    """What was answered; nothing where there is no such file."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return {key: value for key, value in kept["answers"].items() if isinstance(value, bool)}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}


def save(path: Path, answers: Mapping[str, bool]) -> bool:
    """Replace the file as a whole; it gets the directory's owner, so that `sudo` leaves no file of root."""
    data = json.dumps({"answers": dict(answers)}, indent=2) + "\n"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(path, data.encode())
        if os.geteuid() == 0:
            owner = path.parent.stat()
            os.chown(path, owner.st_uid, owner.st_gid)
    except OSError:
        return False
    return True
