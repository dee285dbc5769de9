"""All checks, one after the other."""

from collections.abc import Iterator

from device_agent.discovery.system import System, User
from device_agent.doctor import actuators, buses, machine, service
from device_agent.doctor.finding import Finding, Patient
from device_agent.doctor.units import UNIT, unit_text, value_of


def examine(patient: Patient, ask: actuators.Ask | None = None) -> Iterator[Finding]:
    """Every finding, hardware first. `ask` as in `actuators.check`."""
    yield from buses.check(patient)
    yield from machine.check(patient)
    yield from service.check(patient)
    if patient.config is not None:
        yield from actuators.check(patient.config, ask)


def user_of_the_service(system: System) -> User | None:
    """Who the installed unit runs as, with the groups it adds; None where there is none."""
    text = unit_text(system, UNIT)
    user = system.user(value_of(text, "User")) if text else None
    if user is None:
        return None
    known = system.groups()
    more = {known[name] for name in value_of(text, "SupplementaryGroups").split() if name in known}
    return User(user.name, user.uid, user.groups | more)
