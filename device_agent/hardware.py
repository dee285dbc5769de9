"""The buses and devices at work. They follow a changed configuration; what did not change is not touched."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import structlog

from device_agent.bus.config import BusConfig
from device_agent.bus.core import Bus, Handle
from device_agent.clock import Clock
from device_agent.config import Config
from device_agent.device import Device, Sink
from device_agent.lives import Lives
from device_agent.recovery import Ladder, PowerPin
from device_agent.supervisor import BusKeeper

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
    """Owns the lives of buses and devices. `devices` is filled here and one for all."""

    def __init__(
        self,
        config: Config,
        make_handle: HandleFactory,
        sink: Sink,
        clock: Clock,
        devices: dict[str, Device],
    ) -> None:
        self.devices = devices
        self.keepers: dict[str, BusKeeper] = {}
        self._config = config
        self._make_handle = make_handle
        self._sink = sink
        self._clock = clock
        self._lives: dict[str, Lives] = {}
        self._power: dict[str, PowerPin] = {}
        for name in config.buses:
            self._add_bus(name, config)
        for name in config.devices:
            self.devices[name] = self._device(name, config)

    def _add_bus(self, name: str, config: Config) -> None:
        """After the buses of the pins by which it is recovered."""
        if name in self.keepers:
            return
        options = config.buses[name]
        bus = Bus(name, self._make_handle(name, options))
        pins = {
            pins: self._pins(getattr(options, pins).bus, config)
            for pins in ("clear", "power")
            if getattr(options, pins, None) is not None
        }
        if "power" in pins:
            self._power[name] = PowerPin(options.power, pins["power"])  # type: ignore[union-attr, arg-type]
        ladder = Ladder(bus, self._clock, options, pins=pins.get("clear"), power=self._power.get(name))
        self.keepers[name] = BusKeeper(bus, self._clock, ladder)

    def _pins(self, name: str, config: Config) -> Bus:
        self._add_bus(name, config)
        return self.keepers[name].bus

    def figures(self) -> list[dict[str, Any]]:
        """Each bus, for `status`."""
        return [keeper.figures() for name, keeper in self.keepers.items() if name in self._config.buses]

    def _device(self, name: str, config: Config) -> Device:
        options = config.devices[name]
        if options.bus is None:
            # It has a thread of its own all the same, for it may block.
            handle = self._make_handle(name, None)
            keeper = self.keepers[_own(name)] = BusKeeper(Bus(name, handle), self._clock)
            timeout_s = config.drivers[name].call_limit_s
        else:
            keeper = self.keepers[options.bus]
            timeout_s = config.buses[options.bus].timeout_s
        return Device(
            name, config.drivers[name], options, keeper.bus, self._clock, self._sink, timeout_s=timeout_s
        )

    # -- life ----------------------------------------

    def start(self) -> None:
        """Open everything; each bus and device lives by itself."""
        for name in self.keepers:
            self._start_bus(name)
        for name, device in self.devices.items():
            self._keep(f"device {name}", device)

    def _start_bus(self, name: str) -> None:
        self._keep(f"bus {name}", self.keepers[name])
        if name in self._power:
            self._keep(f"power {name}", self._power[name])

    def _keep(self, name: str, what: BusKeeper | Device | PowerPin) -> None:
        lives = self._lives[name] = Lives("hardware")
        lives.keep(name, what.run)

    async def _end(self, name: str) -> None:
        lives = self._lives.pop(name, None)
        if lives is not None:
            await lives.close()

    async def close(self) -> None:
        """End all devices, then give the buses back."""
        for name in list(self._lives):
            await self._end(name)
        for keeper in self.keepers.values():
            await keeper.bus.close()
            keeper.bus.stop()

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
            if _own(name) in self.keepers:
                await self._give_back(_own(name))

    async def adopt(self, config: Config, names: list[str]) -> None:
        """Take the new configuration: buses first, then these devices."""
        for name in self._config.buses:
            if name not in config.buses or _with_pins(name, self._config) != _with_pins(name, config):
                await self._give_back(name)
        for name in config.buses:
            self._add_bus(name, config)
            if f"bus {name}" not in self._lives:
                self._start_bus(name)
        self._config = config
        for name in names:
            self.devices[name] = self._device(name, config)
            if config.devices[name].bus is None:
                self._keep(f"bus {_own(name)}", self.keepers[_own(name)])
            self._keep(f"device {name}", self.devices[name])

    async def _give_back(self, name: str) -> None:
        await self._end(f"power {name}")
        self._power.pop(name, None)
        await self._end(f"bus {name}")
        keeper = self.keepers.pop(name)
        await keeper.bus.close()
        keeper.bus.stop()


def _with_pins(name: str, config: Config) -> tuple[BusConfig, ...]:
    """A bus's table, and those of the pins by which it is recovered: with these it changes too."""
    bus = config.buses[name]
    used = [getattr(bus, pins, None) for pins in ("clear", "power")]
    return bus, *(config.buses[pins.bus] for pins in used if pins is not None)


def _own(device: str) -> str:
    """The name of the thread of a device without a bus."""
    return f"device {device}"
