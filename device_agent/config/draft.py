"""The parts of a configuration that could be read: cross checks use it, so that all faults show at once."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import ValidationError

from device_agent.bus.config import BusConfig
from device_agent.config.access import AccessConfig
from device_agent.config.automation import Alert, Rule
from device_agent.config.delegation import Delegation
from device_agent.config.models import AgentConfig, SafetyConfig, StateConfig, StreamConfig
from device_agent.driver import Driver, DriverConfig, Point
from device_agent.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DraftDevice:
    """One device whose own table is right, with its driver's points, claims and safe values."""

    name: str
    driver_name: str
    driver: type[Driver[Any, Any]]
    config: DriverConfig
    points: tuple[Point, ...]
    claims: tuple[str, ...]
    safe: dict[str, Any]

    @property
    def writable(self) -> tuple[Point, ...]:
        return tuple(point for point in self.points if point.write)

    @property
    def has_bytes(self) -> bool:
        """Whether it can be piped as it is (a serial console, a log)."""
        return self.driver.bytes_side

    @property
    def drivable(self) -> bool:
        return bool(self.writable) or any(action.moves for action in self.driver.actions)


@dataclass(slots=True)
class ConfigDraft:
    """The parts that passed on their own. The `…_names` hold all that were written, right or wrong."""

    agent: AgentConfig | None = None
    state: StateConfig | None = None
    access: AccessConfig | None = None
    safety: SafetyConfig | None = None
    buses: dict[str, BusConfig] = field(default_factory=dict)
    devices: dict[str, DraftDevice] = field(default_factory=dict)
    streams: dict[str, StreamConfig] = field(default_factory=dict)
    delegations: dict[str, Delegation] = field(default_factory=dict)
    rules: dict[str, Rule] = field(default_factory=dict)
    alerts: dict[str, Alert] = field(default_factory=dict)
    history_enabled: bool = True
    bus_names: tuple[str, ...] = ()
    device_names: tuple[str, ...] = ()
    stream_names: tuple[str, ...] = ()
    delegation_names: tuple[str, ...] = ()
    rule_names: tuple[str, ...] = ()


def ask(place: str, driver_name: str, call: Callable[[], T]) -> T:
    """Call a driver's own code. Whatever it raises becomes a ConfigError that names the driver."""
    try:
        return call()
    except (ValidationError, ConfigError):
        raise
    except Exception as error:  # foreign code: its failure must not hide the other problems
        cause = " ".join(str(error).split())
        raise ConfigError(
            f'{place}: driver "{driver_name}" failed on this table ({type(error).__name__}: {cause}): '
            "tell its author"
        ) from error


def describe(
    name: str, driver_name: str, driver: type[Driver[Any, Any]], config: DriverConfig
) -> DraftDevice:
    """One device as its driver describes it. Raises ConfigError for a driver that fails."""
    place = f"devices.{name}"
    safe_of = getattr(driver, "safe_of", None)
    return DraftDevice(
        name,
        driver_name,
        driver,
        config,
        points=ask(place, driver_name, lambda: tuple(driver.points_of(config))),
        claims=ask(place, driver_name, lambda: tuple(driver.claims(config))),
        safe=ask(place, driver_name, lambda: dict(safe_of(config))) if safe_of is not None else {},
    )
