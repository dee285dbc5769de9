"""The whole search, in an order that asks nothing twice."""

from collections.abc import Mapping

from device_agent import registry
from device_agent.bus.config import I2cBusConfig, OneWireBusConfig
from device_agent.bus.onewire_sysfs import SysfsOneWire
from device_agent.config import Config
from device_agent.discovery import i2c, others
from device_agent.discovery.found import Found, FoundChip
from device_agent.discovery.system import System
from device_agent.errors import BusError, ConfigError

W1 = "/sys/bus/w1/devices"


def installed() -> tuple[i2c.Drivers, list[str]]:
    """Every driver that can be loaded, and what is wrong with the others."""
    drivers, notes = {}, []
    for name in registry.names():
        try:
            drivers[name] = registry.load(name)
        except ConfigError as error:
            notes.append(str(error))
    return drivers, notes


def daemon_buses(config: Config | None) -> dict[str, str]:
    """The I2C nodes of a daemon that runs with this configuration."""
    if config is None:
        return {}
    return {
        bus.device: f"the running daemon (bus {name})"
        for name, bus in config.buses.items()
        if isinstance(bus, I2cBusConfig)
    }


def scan(system: System, daemon: Mapping[str, str], drivers: i2c.Drivers, notes: list[str]) -> Found:
    """Find everything. `daemon` says by node (or an adapter's name) what the running daemon holds.

    A bus in use is not asked: its chips belong to who uses it.
    """
    busy = {**system.holders(), **_nodes(system, daemon)}
    return Found(
        board=others.board(system),
        gpio=tuple(others.gpio(system)),
        i2c=tuple(i2c.buses(system, drivers, busy)),
        spi=tuple(others.spi(system)),
        onewire=tuple(_onewire(system, drivers)),
        serial=tuple(others.ports(system, busy)),
        pwm=tuple(others.pwm(system)),
        cameras=tuple(others.cameras(system)),
        brokers=tuple(others.brokers(system)),
        notes=tuple(notes),
    )


def _onewire(system: System, drivers: i2c.Drivers) -> list[FoundChip]:
    bus = SysfsOneWire("w1", OneWireBusConfig(kind="w1", directory=str(system.path(W1))))
    try:
        bus.open()
        return i2c.identified(drivers, "w1", bus, bus.devices())
    except BusError:
        return []  # the kernel has no 1-Wire
    finally:
        bus.close()


def _nodes(system: System, daemon: Mapping[str, str]) -> dict[str, str]:
    """With the names of adapters replaced by their nodes."""
    names = {
        system.text(f"/sys/bus/i2c/devices/{node.rpartition('/')[2]}/name"): node
        for node in system.find("/dev/i2c-*")
    }
    return {names.get(device, device): who for device, who in daemon.items()}
