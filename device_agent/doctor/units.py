"""The units of systemd as text."""

import re

from device_agent.discovery.system import System

UNIT, GUARD = "device-agent.service", "device-agent-guard.service"
FOLDERS = ("/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")


def unit_text(system: System, unit: str) -> str:
    """The unit with its drop-ins; "" where it is not installed."""
    text = next((found for folder in FOLDERS if (found := system.text(f"{folder}/{unit}"))), "")
    if not text:
        return ""
    more = [system.text(path) for folder in FOLDERS for path in system.find(f"{folder}/{unit}.d/*.conf")]
    return "\n".join([text, *more])


def value_of(text: str, key: str) -> str:
    """The last value of a key of a unit; "" where it is not there."""
    values = re.findall(rf"^\s*{key}\s*=\s*(.*?)\s*$", text, re.MULTILINE)
    return str(values[-1]) if values else ""
