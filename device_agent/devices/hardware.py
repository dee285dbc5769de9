"""All buses and devices. They follow a changed configuration; what did not change is not touched."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import structlog

from device_agent.background import BackgroundTasks, first_of
from device_agent.bus.config import BusConfig
from device_agent.bus.core import Bus, Handle
from device_agent.clock import Clock
from device_agent.config import Config
from device_agent.devices.actuator_hooks import ActuatorHooks
from device_agent.devices.bus_recovery import PowerPin, RecoveryPolicy
from device_agent.devices.bus_supervisor import BusSupervisor
from device_agent.devices.device import Device
from device_agent.devices.kept import Kept
from device_agent.records import ReadingSubscriber

log = structlog.get_logger("hardware")

HandleFactory = Callable[[str, BusConfig | None], Handle]


@dataclass(slots=True)
class Change:
    """What a new configuration means for the devices, by name."""

    removed: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.removed or self.changed or self.added)


class Hardware:
    """Runs buses and devices. `devices` is filled here, and is the one mapping that all others read."""

    def __init__(
        self,
        config: Config,
        make_handle: HandleFactory,
        subscriber: ReadingSubscriber,
        clock: Clock,
        devices: dict[str, Device],
        hooks: ActuatorHooks | None = None,
    ) -> None:
        self.devices = devices
        self.supervisors: dict[str, BusSupervisor] = {}
        self.kept: Kept = {}
        """What drivers keep over restarts, by device; also of devices that are not configured now."""
        self._config = config
        self._make_handle = make_handle
        self._subscriber = subscriber
        self._hooks = hooks
        self._clock = clock
        self._background: dict[str, BackgroundTasks] = {}
        self._power: dict[str, PowerPin] = {}
        for name in config.buses:
            self._add_bus(name, config)
        for name in config.devices:
            self.devices[name] = self._device(name, config)

    def _add_bus(self, name: str, config: Config) -> None:
        """After the buses of the pins by which it is recovered."""
        if name in self.supervisors:
            return
        options = config.buses[name]
        bus = Bus(name, self._make_handle(name, options), options.timeout_s)
        pins = {
            pins: self._pins(getattr(options, pins).bus, config)
            for pins in ("clear", "power")
            if getattr(options, pins, None) is not None
        }
        if "power" in pins:
            self._power[name] = PowerPin(options.power, pins["power"])  # type: ignore[union-attr, arg-type]
        recovery = RecoveryPolicy(
            bus, self._clock, options, pins=pins.get("clear"), power=self._power.get(name)
        )
        self.supervisors[name] = BusSupervisor(bus, self._clock, recovery)

    def _pins(self, name: str, config: Config) -> Bus:
        self._add_bus(name, config)
        return self.supervisors[name].bus

    def figures(self) -> list[dict[str, Any]]:
        """Each bus, for `status`."""
        return [
            supervisor.figures()
            for name, supervisor in self.supervisors.items()
            if name in self._config.buses
        ]

    def _device(self, name: str, config: Config) -> Device:
        options = config.devices[name]
        if options.bus is None:
            # It has a thread of its own all the same, for it may block.
            handle = self._make_handle(name, None)
            bus = Bus(name, handle, config.drivers[name].call_limit_s)
            self.supervisors[_own(name)] = BusSupervisor(bus, self._clock)
        else:
            bus = self.supervisors[options.bus].bus
        kept = self.kept.setdefault(name, {})
        return Device(
            name, config.drivers[name], options, bus, self._clock, self._subscriber, self._hooks, kept
        )

    # -- start and end ----------------------------------------

    def start(self) -> None:
        """Open everything; each bus and device runs by itself."""
        for name in self.supervisors:
            self._start_bus(name)
        for name, device in self.devices.items():
            self._run(f"device {name}", device)

    async def until_tried(self) -> None:
        """Each device was opened, or could not be. No limit of its own: the caller owns the wait."""
        for supervisor in self.supervisors.values():
            await supervisor.tried.wait()
        for device in list(self.devices.values()):
            await first_of(device.tried.wait(), device.bus.until_not_open())

    def _start_bus(self, name: str) -> None:
        self._run(f"bus {name}", self.supervisors[name])
        if name in self._power:
            self._run(f"power {name}", self._power[name])

    def _run(self, name: str, what: BusSupervisor | Device | PowerPin) -> None:
        background = self._background[name] = BackgroundTasks("hardware")
        background.run_forever(name, what.run)

    async def _end(self, name: str) -> None:
        background = self._background.pop(name, None)
        if background is not None:
            await background.close()

    async def close(self) -> None:
        """End all devices, then give the buses back."""
        for name in list(self._background):
            await self._end(name)
        for supervisor in self.supervisors.values():
            await supervisor.bus.close()
            supervisor.bus.stop()

    # -- reload ----------------------------------------

    def compare(self, config: Config) -> Change:
        """Which devices a new configuration removes, changes, adds. A device on a changed bus is changed."""
        change = Change()
        for name in self._config.devices:
            if name not in config.devices:
                change.removed.append(name)
            elif self._facts(self._config, name) != self._facts(config, name):
                change.changed.append(name)
        change.added = [name for name in config.devices if name not in self._config.devices]
        return change

    @staticmethod
    def _facts(config: Config, name: str) -> tuple[object, ...]:
        options = config.devices[name]
        bus = None if options.bus is None else _with_pins(options.bus, config)
        return config.drivers[name], options, bus

    async def remove(self, names: list[str]) -> None:
        """End these devices; their actuators were made safe before."""
        for name in names:
            await self._end(f"device {name}")
            del self.devices[name]
            if _own(name) in self.supervisors:
                await self._give_back(_own(name))

    async def adopt(self, config: Config, names: list[str]) -> None:
        """Take the new configuration: buses first, then these devices."""
        for name in self._config.buses:
            if name not in config.buses or _with_pins(name, self._config) != _with_pins(name, config):
                await self._give_back(name)
        for name in config.buses:
            self._add_bus(name, config)
            if f"bus {name}" not in self._background:
                self._start_bus(name)
        self._config = config
        for name in names:
            self.devices[name] = self._device(name, config)
            if config.devices[name].bus is None:
                self._run(f"bus {_own(name)}", self.supervisors[_own(name)])
            self._run(f"device {name}", self.devices[name])

    async def _give_back(self, name: str) -> None:
        await self._end(f"power {name}")
        self._power.pop(name, None)
        await self._end(f"bus {name}")
        supervisor = self.supervisors.pop(name)
        await supervisor.bus.close()
        supervisor.bus.stop()


def _with_pins(name: str, config: Config) -> tuple[BusConfig, ...]:
    """A bus's table, and those of the pins by which it is recovered: with these it changes too."""
    bus = config.buses[name]
    used = [getattr(bus, pins, None) for pins in ("clear", "power")]
    return bus, *(config.buses[pins.bus] for pins in used if pins is not None)


def _own(device: str) -> str:
    """The name of the thread of a device without a bus."""
    return f"device {device}"
