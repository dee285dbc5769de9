"""What the running daemon has to say of its devices, its guard and its link."""

from collections.abc import Iterator, Mapping
from typing import Any

from device_agent.doctor.finding import Finding
from device_agent.doctor.service import INSTALL


def check(status: Mapping[str, Any]) -> Iterator[Finding]:
    """Of the daemon's `status`."""
    if slow := (status.get("guard") or {}).get("slow"):
        why = "while all processors are busy, or memory is short, it may make safe later than 50 ms"
        remedy = f"{INSTALL}, which gives it both; elsewhere LimitRTPRIO=10 and LimitMEMLOCK=64M"
        yield Finding("note", f"the guard has to wait its turn: {slow}", "guard", why, remedy)
    if blind := (status.get("link") or {}).get("blind"):
        why = "a copied card's commands then move both, unless each has an identity of its own"
        remedy = "start one at a time, and compare `instance` of `status`"
        yield Finding("note", blind, "network", why, remedy)
    for device in status["devices"]:
        where = f"devices.{device['device']}"
        detail = device.get("detail", "")
        if device["state"] != "online":
            yield Finding("problem", f"is {device['state']} ({device['reason']}): {detail}", where)
        for about, note in device.get("notes", {}).items():
            if str(note) != detail:
                yield Finding("note", f"{about.replace('_', ' ')}: {note}", where)
