"""What the running daemon has to say of its devices."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from device_agent.doctor.finding import Finding


def check(devices: Iterable[Mapping[str, Any]]) -> Iterator[Finding]:
    """`devices` are those of the daemon's `status`."""
    for device in devices:
        where = f"devices.{device['device']}"
        detail = device.get("detail", "")
        if device["state"] != "online":
            yield Finding("problem", f"is {device['state']} ({device['reason']}): {detail}", where)
        for about, note in device.get("notes", {}).items():
            if str(note) != detail:
                yield Finding("note", f"{about.replace('_', ' ')}: {note}", where)
