"""`read`, `set`, `do` and `safe` where no daemon runs; the process stays until everything is safe again.

An actuator that is away from safe always has a process that watches it. So the command stays, with the same
limits, latch, Journal and guard as the daemon's, and answers at the daemon's socket meanwhile; when it ends,
everything is safe.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any

from device_agent.background import first_of
from device_agent.bus.core import Bus, BusState
from device_agent.bus.factory import make_handle
from device_agent.clock import SystemClock
from device_agent.commands.control_side import build_control
from device_agent.config import Config
from device_agent.devices.device import NOT_OPENED, SAYS_NOTHING, Device
from device_agent.devices.hardware import HandleFactory
from device_agent.devices.kept import newest
from device_agent.driver import Actuator
from device_agent.errors import NoAnswer, Rejected
from device_agent.messages.events import reading_members
from device_agent.operate.control_socket import ControlSocket, asked_by
from device_agent.operate.local_handlers import LocalHandlers
from device_agent.records import Reading, ReadingSubscriber, Status
from device_agent.store.journal.journal import Journal
from device_agent.store.state_directory import in_use, prepare
from device_agent.store.store_thread import StoreThread

# A device is opened within this; a port that must enumerate is there already.
ONLINE_LIMIT_S = 10.0
SAFE_LIMIT_S = 5.0
GUARD_LIMIT_S = 2.0
# Some meters send every minute, and what is asked at 300 baud may take as long.
TALK_LIMIT_S = 70.0
CHECK_S = 0.05


class StandaloneControl:
    """`async with` it: these devices, and those that their rules depend on, at work without a network."""

    def __init__(self, config: Config, names: set[str], make: HandleFactory = make_handle) -> None:
        named = _with_their_rules(config, names)
        devices = {name: options for name, options in config.devices.items() if name in named}
        used = {options.bus for options in devices.values()}
        buses = {name: bus for name, bus in config.buses.items() if name in used}
        config = replace(config, devices=devices, buses=buses)
        clock, state = SystemClock(), config.state
        self._store = StoreThread()
        path = state.directory / "journal.db"
        self._journal = Journal(path, self._store, clock.now_ms, state.runtime_directory)
        self._control = build_control(config, self._journal, clock)
        self._hardware = self._control.make_hardware(make, self._control.dispatcher())
        self._devices = self._control.devices
        self.safe_states = self._control.safe_states
        self.handlers = LocalHandlers(self._control)
        self._socket = ControlSocket(state.runtime_directory / "control.sock", self.handlers.handlers())
        self._config = config
        self._held = ExitStack()

    async def __aenter__(self) -> "StandaloneControl":
        asked_by(os.getuid())
        try:
            prepare(self._config.state.directory, self._config.state.runtime_directory)
            # First of all: whoever has the directory and the socket has the hardware.
            self._held.enter_context(in_use(self._config.state.directory))
            await self._socket.open()
        except PermissionError as error:
            raise Rejected(
                "not_allowed", f"{error.filename}: permission denied; use the user that the daemon runs as"
            ) from error
        try:
            await self._journal.open()
            await self._control.recall()
            await self._control.guard.start()
            self._hardware.start()
            await self._online()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()

    async def _online(self) -> None:
        """Returns when each device was opened, or could not be; `need` tells which."""
        with suppress(TimeoutError):
            async with asyncio.timeout(ONLINE_LIMIT_S):
                while not all(self._tried(d) for d in self._devices.values()):  # noqa: ASYNC110 - two sources
                    await asyncio.sleep(CHECK_S)

    def _tried(self, device: Device) -> bool:
        if device.bus.state is not BusState.OPEN and device.bus.last_error:
            return True
        return device.online or device.detail != NOT_OPENED

    def need(self, name: str) -> None:
        """Raises NoAnswer if the device could not be opened."""
        device = self._devices[name]
        if not device.online:
            why = device.detail if device.bus.state is BusState.OPEN else device.bus.last_error
            raise NoAnswer(f"device {name}: {why or device.detail}")

    async def until_safe(self, ended: asyncio.Event) -> None:
        """Returns when everything is at its safe value, or when `ended` is set."""
        while self.safe_states.away(self.safe_states.limits) and not ended.is_set():
            await first_of(ended.wait(), limit_s=CHECK_S)

    async def _end(self) -> None:
        self._control.permit.stop()
        made_safe = await self.safe_states.all_safe("the command ended", SAFE_LIMIT_S)
        await self._control.guard.bye(made_safe)
        await self._control.guard.until_gone(GUARD_LIMIT_S)
        await self._socket.close()
        await self._control.close()
        await self._hardware.close()
        await self._journal.close()
        await self._store.close()
        self._held.close()


def drive_directly(
    config: Config,
    question: Mapping[str, Any],
    held: Callable[[dict[str, Any]], None],
    make: HandleFactory = make_handle,
) -> dict[str, Any]:
    """Carry out a `set` or `do`; the members of its ack. If something is away from safe after it, `held` is
    called with them, and this returns when it is safe again: by a limit, another command, or a signal to this
    process.

    Raises Rejected, NoAnswer, AgentError where a daemon runs.
    """
    name = str(question["device"])
    _check_known(config, name)

    async def drive() -> dict[str, Any]:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, ended.set)
        async with StandaloneControl(config, {name}, make) as control:
            control.need(name)
            ack: dict[str, Any] = await control.handlers.command(question)
            if ack["state"] == "done" and control.safe_states.away(control.safe_states.limits):
                held(ack)
                await control.until_safe(ended)
            return ack

    return asyncio.run(drive())


def safe_directly(config: Config, make: HandleFactory = make_handle) -> dict[str, bool]:
    """Every actuator to its safe state; which of them are. Raises as `drive_directly`."""
    names = {name for name, driver in config.drivers.items() if issubclass(driver, Actuator)}

    async def make_safe() -> dict[str, bool]:
        async with StandaloneControl(config, names, make) as control:
            return await control.safe_states.all_safe("asked by the owner", SAFE_LIMIT_S)

    return asyncio.run(make_safe()) if names else {}


def _with_their_rules(config: Config, names: set[str]) -> set[str]:
    """Also what these are interlocked with, what they may move only while, and the emergency stop's line."""
    groups = {group for name in names for group in getattr(config.devices[name], "interlock", ())}
    partners = {
        name for name, other in config.devices.items() if groups & set(getattr(other, "interlock", ()))
    }
    conditions = {other for name in names for other in getattr(config.devices[name], "only_while", {})}
    stop = [name for name in (config.safety.stop_device,) if name is not None]
    return {*names, *partners, *conditions, *stop}


def _check_known(config: Config, name: str) -> None:
    if name not in config.devices:
        known = ", ".join(config.devices) or "none"
        raise Rejected("unknown_device", f"there is no device {name!r}; there are: {known}")


# -- read ----------------------------------------


class _DeviceNews(ReadingSubscriber):
    """`changed` is set whenever the device reports anything."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()

    def on_reading(self, reading: Reading) -> None:
        self.changed.set()

    def on_status(self, status: Status) -> None:
        self.changed.set()


def read_directly(config: Config, name: str) -> dict[str, Any]:
    """The reading. Raises Rejected, BusError, DriverError."""
    _check_known(config, name)
    return asyncio.run(_answer(config, name))


async def _answer(config: Config, name: str) -> dict[str, Any]:
    driver, options = config.drivers[name], config.drivers[name].to_read(config.devices[name])
    if options is None:
        raise NoAnswer(
            f"device {name}: opening it sets it to its safe value, and reading moves nothing; "
            "read it while the daemon runs"
        )
    handle = make_handle(options.bus or name, None if options.bus is None else config.buses[options.bus])
    limit_s = driver.call_limit_s if options.bus is None else config.buses[options.bus].timeout_s
    bus = Bus(options.bus or name, handle, limit_s)
    subscriber = _DeviceNews()
    _, _, counts = await asyncio.to_thread(newest, config.state.directory, config.state.runtime_directory)
    kept = counts.get(name)
    device = Device(name, driver, options, bus, SystemClock(), subscriber, kept=kept)
    await bus.open()
    running = asyncio.ensure_future(device.run())
    try:
        async with asyncio.timeout(TALK_LIMIT_S):
            while not device.online:
                await subscriber.changed.wait()
                subscriber.changed.clear()
                # One that speaks by itself may yet do so.
                if not device.online and device.detail != SAYS_NOTHING:
                    raise NoAnswer(f"device {name}: {device.detail}")
            return reading_members(device.latest or await device.read_now())
    except TimeoutError:
        raise NoAnswer(f"device {name} said nothing; it was asked, or listened to, long enough") from None
    finally:
        running.cancel()
        await asyncio.wait([running])
        await bus.close()
        bus.stop()
