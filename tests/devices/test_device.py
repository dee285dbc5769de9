"""A device's states and what it reports of them, its period, and the hooks around an actuator."""

import asyncio
import threading
from collections.abc import AsyncIterator, Generator, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import pytest

from device_agent.bus.core import Bus, NoBus
from device_agent.clock import SystemClock
from device_agent.devices import device as device_module
from device_agent.devices.actuator_hooks import ActuatorHooks
from device_agent.devices.device import READ_TRIES, SHORTEST_PERIOD_S, Device
from device_agent.driver import Actuator, ActuatorConfig, Driver, DriverConfig, Point, Sensor, Value, Values
from device_agent.errors import BusGone, BusTimeout, DriverError, NoAnswer
from device_agent.records import DeviceState, Reading, ReadingSubscriber, Status
from support.waiting import until_async


class Reports(ReadingSubscriber):
    def __init__(self) -> None:
        self.readings: list[Reading] = []
        self.states: list[tuple[DeviceState, str]] = []

    def on_reading(self, reading: Reading) -> None:
        self.readings.append(reading)

    def on_status(self, status: Status) -> None:
        self.states.append((status.state, status.reason))


class Gauge(Sensor[DriverConfig, NoBus]):
    points = (Point("level"),)
    default_every_s = 0.02
    faults: ClassVar[list[Exception]] = []

    def read(self) -> dict[str, Value]:
        if self.faults:
            raise self.faults.pop(0)
        return {"level": 5.0}


class Valve(Actuator[ActuatorConfig, NoBus]):
    points = (Point("open", type="boolean", write=True),)

    def open(self) -> None:
        self.set_to: list[Mapping[str, Value]] = []

    def write(self, values: Mapping[str, Value]) -> None:
        self.set_to.append(values)


class Steps(ActuatorHooks):
    def __init__(self) -> None:
        self.steps: list[str] = []

    def concerns(self, device: str, *, is_actuator: bool) -> bool:
        return is_actuator

    def open(self, device: str, driver: Driver[Any, Any]) -> str:
        driver.open()
        self.steps.append("open")
        return "recipes"

    def opened(self, device: str, result: Any) -> None:
        self.steps.append(f"opened with {result}")

    async def closed(self, device: str) -> None:
        self.steps.append("closed")


@asynccontextmanager
async def running(
    driver: type[Driver[Any, Any]], config: DriverConfig, hooks: ActuatorHooks | None = None
) -> AsyncIterator[tuple[Device, Reports]]:
    Gauge.faults = []
    bus, reports = Bus("bus", NoBus()), Reports()
    await bus.open()
    device = Device("it", driver, config, bus, SystemClock(), reports, hooks)
    task = asyncio.create_task(device.run())
    try:
        await until_async(lambda: device.online)
        yield device, reports
    finally:
        task.cancel()
        await asyncio.wait([task])
        await bus.close()
        bus.stop()


async def test_a_question_that_fails_is_repeated_before_the_device_is_lost() -> None:
    async with running(Gauge, DriverConfig()) as (device, reports):
        Gauge.faults = [NoAnswer("0x76")] * (READ_TRIES - 1)
        await until_async(lambda: device.bus.retries_helped == 1)
        assert reports.states == [(DeviceState.ONLINE, "")]
        assert device.bus.retries == READ_TRIES - 1


@pytest.mark.parametrize(
    ("faults", "state", "reason"),
    [
        ([NoAnswer("0x76")] * READ_TRIES, DeviceState.OFFLINE, "absent"),
        ([DriverError("wrong id")], DeviceState.FAULT, "driver_error"),
        ([ValueError("a bug")], DeviceState.FAULT, "driver_error"),
    ],
)
async def test_lost_and_back_are_reported_once(
    faults: list[Exception], state: DeviceState, reason: str
) -> None:
    async with running(Gauge, DriverConfig()) as (device, reports):
        Gauge.faults = list(faults)
        await until_async(lambda: len(reports.states) == 3)
        assert reports.states == [(DeviceState.ONLINE, ""), (state, reason), (DeviceState.ONLINE, "")]
        assert repr(device) == "<Device it online>"


async def test_a_medium_that_is_gone_is_the_bus_s_failure_too() -> None:
    async with running(Gauge, DriverConfig()) as (device, reports):
        Gauge.faults = [BusGone("no adapter")]
        await until_async(lambda: not device.online)
        assert reports.states[-1] == (DeviceState.OFFLINE, "unplugged")
        assert device.bus.state == "faulted"
        assert repr(device) == "<Device it offline (unplugged: no adapter)>"
        with pytest.raises(NoAnswer, match="no adapter"):
            await device.read_now()


async def test_the_period_is_the_shortest_that_anybody_asked_for() -> None:
    async with running(Gauge, DriverConfig(every_s=60.0)) as (device, reports):
        known = len(reports.readings)
        device.demand("s1", 0.0)
        device.demand("s2", 10.0)
        assert device.effective_period_s == SHORTEST_PERIOD_S
        await until_async(lambda: len(reports.readings) >= known + 2)
        device.demand("s1", None)
        assert device.effective_period_s == 10.0
        device.demand("s2", None)
        assert device.effective_period_s == 60.0


async def test_hooks_are_called_around_an_actuator() -> None:
    hooks = Steps()
    async with running(Valve, ActuatorConfig(safe=False), hooks):
        assert hooks.steps == ["open", "opened with recipes"]
    assert hooks.steps[2:] == ["closed"]


async def test_hooks_are_not_called_for_a_sensor() -> None:
    hooks = Steps()
    async with running(Gauge, DriverConfig(), hooks):
        pass
    assert hooks.steps == []


async def test_a_write_is_reported_at_once_and_refused_on_the_bus_thread() -> None:
    async with running(Valve, ActuatorConfig(safe=False)) as (device, reports):
        assert await device.write({"open": True}, may_begin=lambda: None) == {}
        assert reports.readings[-1].values == {"open": True}

        def refuse() -> None:
            raise DriverError("nothing may move")

        with pytest.raises(DriverError, match="nothing may move"):
            await device.write({"open": False}, may_begin=refuse)
        assert reports.readings[-1].values == {"open": True}


class Shutter(Valve):
    """Set in two transactions; `held` keeps the first one from ending."""

    held: ClassVar[threading.Event] = threading.Event()
    jammed: ClassVar[bool] = False

    def open(self) -> None:
        if self.jammed:
            raise NoAnswer("jammed")
        super().open()

    def write_steps(self, values: Mapping[str, Value]) -> Generator[None, None, Values]:
        self.write({"first half of": True})
        assert self.held.wait(10.0)
        yield
        return self.write(values)


async def test_a_write_that_is_interrupted_by_a_safe_state_goes_no_further() -> None:
    Shutter.held = threading.Event()
    async with running(Shutter, ActuatorConfig(safe=False)) as (device, _):
        driver = device._online_driver()
        writing = asyncio.ensure_future(device.write({"open": True}, may_begin=lambda: None))
        await until_async(lambda: driver.set_to)
        making_safe = asyncio.ensure_future(device.safe())
        await until_async(lambda: device.bus.waiting == 2)
        Shutter.held.set()
        await making_safe
        with pytest.raises(BusTimeout, match="made safe while it was set"):
            await writing
        assert driver.set_to == [{"first half of": True}, {"open": False}]


async def test_one_that_is_lost_is_opened_at_once_for_who_makes_it_safe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Shutter, "jammed", False)
    monkeypatch.setattr(device_module, "REOPEN_FIRST_S", 3600.0)
    monkeypatch.setattr(device_module, "REOPEN_MAX_S", 3600.0)
    bus, reports = Bus("bus", NoBus()), Reports()
    await bus.open()
    Shutter.jammed = True
    device = Device("it", Shutter, ActuatorConfig(safe=False), bus, SystemClock(), reports)
    task = asyncio.create_task(device.run())
    await until_async(lambda: reports.states)
    with pytest.raises(NoAnswer, match="jammed"):
        await device.safe()
    Shutter.jammed = False
    await until_async(lambda: device.online)
    await device.safe()
    task.cancel()
    await asyncio.wait([task])
    await bus.close()
    bus.stop()


async def test_who_makes_it_safe_while_it_is_being_closed_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Shutter, "jammed", True)
    monkeypatch.setattr(device_module, "REOPEN_FIRST_S", 3600.0)
    monkeypatch.setattr(device_module, "REOPEN_MAX_S", 3600.0)

    class Asking(ActuatorHooks):
        def concerns(self, device: str, *, is_actuator: bool) -> bool:
            return True

        async def closed(self, device: str) -> None:
            if Shutter.jammed:
                Shutter.jammed = False
                with pytest.raises(NoAnswer, match="jammed"):
                    await shutter.safe()

    bus = Bus("bus", NoBus())
    await bus.open()
    shutter = Device("it", Shutter, ActuatorConfig(safe=False), bus, SystemClock(), Reports(), Asking())
    task = asyncio.create_task(shutter.run())
    await until_async(lambda: shutter.online)
    task.cancel()
    await asyncio.wait([task])
    await bus.close()
    bus.stop()


class SlowToSafe(Actuator[ActuatorConfig, NoBus], Sensor[ActuatorConfig, NoBus]):
    """Its options say that a call may take longer than the agent's own limits."""

    points = (Point("on", type="boolean", write=True),)
    made_safe: ClassVar[threading.Event]

    @classmethod
    def step_limit_s(cls, config: Any) -> float:
        return 30.0

    def safe(self) -> None:
        self.made_safe.set()

    def read(self) -> dict[str, Value]:
        raise DriverError("broken")


class NotedBus(Bus):
    """Keeps the limits of the calls that it carries out."""

    limits_s: ClassVar[list[float]] = []

    async def run(self, fn: Any, timeout_s: float, **options: Any) -> Any:
        self.limits_s.append(timeout_s)
        return await super().run(fn, timeout_s, **options)


async def test_no_limit_is_shorter_than_what_the_options_need() -> None:
    SlowToSafe.made_safe = threading.Event()
    bus, reports = NotedBus("bus", NoBus()), Reports()
    bus.limits_s.clear()
    await bus.open()
    device = Device("it", SlowToSafe, ActuatorConfig(safe=False), bus, SystemClock(), reports)
    task = asyncio.create_task(device.run())
    await until_async(SlowToSafe.made_safe.is_set)
    task.cancel()
    await asyncio.wait([task])
    await bus.close()
    bus.stop()
    assert bus.limits_s[:3] == [30.0] * 3, "to open, to read, to make safe"
