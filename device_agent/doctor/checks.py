"""All checks, one after the other."""

from collections.abc import Iterator

from device_agent.doctor import actuators, buses, machine, service
from device_agent.doctor.finding import Finding, Target


def examine(target: Target, ask: actuators.Ask | None = None) -> Iterator[Finding]:
    """Every finding, hardware first. `ask` as in `actuators.check`."""
    yield from buses.check(target)
    yield from machine.check(target)
    yield from service.check(target)
    if target.config is not None:
        yield from actuators.check(target.config, ask)
