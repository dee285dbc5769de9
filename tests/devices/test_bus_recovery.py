"""The recovery by which a bus is brought back: steps limited and counted, and nobody else's concern."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from device_agent.clock import SystemClock
from device_agent.config import load
from device_agent.devices import bus_supervisor
from device_agent.devices.hardware import Hardware
from device_agent.errors import BusError, BusGone, BusTimeout
from device_agent.records import Reading, ReadingSubscriber, Status
from device_agent.testing.board import Board, open_handle
from device_agent.testing.board.handles import SimulatedI2c

LIMIT_S = 20.0
CONFIG = """
[agent]
name = "greenhouse"
[buses.i2c1]
kind = "i2c"
device = "/dev/i2c-1"
timeout_s = 0.2
{recovery}
[buses.i2c2]
kind = "i2c"
device = "/dev/i2c-2"
[buses.pins]
kind = "gpio"
chip = "pinctrl-bcm2835"
[devices.climate]
driver = "bme280"
bus = "i2c1"
every_s = 0.05
[devices.light]
driver = "bh1750"
bus = "i2c1"
address = 0x23
every_s = 0.05
[devices.other]
driver = "tmp117"
bus = "i2c2"
address = 0x48
every_s = 0.1
"""
POWER = 'power = { bus = "pins", line = 22, off_s = 0.05 }\n'


class WedgedI2c(SimulatedI2c):
    """A bus whose lines are held: each transfer times out until something is done about it."""

    wedged = False
    detached = 0

    def transfer(self, address: int, write: bytes, read_size: int = 0) -> bytes:
        if self.wedged:
            raise BusTimeout(f"bus {self.name}: the bus timed out; SDA or SCL may be held low")
        return super().transfer(address, write, read_size)

    def detach(self) -> None:
        self.detached += 1
        self.wedged = False


class Rig(ReadingSubscriber):
    """Hardware at work on a board, with everything that it said."""

    def __init__(self, folder: Path, recovery: str) -> None:
        path = folder / "agent.toml"
        path.write_text(CONFIG.format(recovery=recovery))
        self.config = load(path)
        devices = {n: (self.config.drivers[n], options) for n, options in self.config.devices.items()}
        self.board = Board(self.config.buses, devices)
        self.readings: list[Reading] = []
        self.statuses: list[Status] = []
        self.handles: dict[str, Any] = {}
        self.hardware = Hardware(self.config, self._handle, self, SystemClock(), {})

    def _handle(self, name: str, config: Any) -> Any:
        made = WedgedI2c(name, self.board, "daemon") if name == "i2c1" else None
        self.handles[name] = made or open_handle(name, config, board=self.board)
        return self.handles[name]

    def on_reading(self, reading: Reading) -> None:
        self.readings.append(reading)

    def on_status(self, status: Status) -> None:
        self.statuses.append(status)

    def steps(self, bus: str = "i2c1") -> dict[str, Any]:
        return next(f for f in self.hardware.figures() if f["bus"] == bus)["recovery"]  # type: ignore[no-any-return]

    def said(self, device: str) -> list[tuple[str, str]]:
        return [(status.state, status.reason) for status in self.statuses if status.device == device]

    def power(self) -> list[int]:
        return [entry["level"] for entry in self.board.record.entries if entry.get("line") == 22]

    async def until(self, condition: Callable[[], Any], what: str) -> None:
        try:
            async with asyncio.timeout(LIMIT_S):
                while not condition():  # noqa: ASYNC110 - what is awaited happens in many places
                    await asyncio.sleep(0.005)
        except TimeoutError:
            raise AssertionError(f"{what}: {self.hardware.figures()} {self.statuses}") from None

    async def all_online(self) -> None:
        await self.until(lambda: all(d.online for d in self.hardware.devices.values()), "all online")


@pytest.fixture
def rig(tmp_path: Path) -> Callable[[str], Any]:
    @asynccontextmanager
    async def make(recovery: str) -> AsyncIterator[Rig]:
        made = Rig(tmp_path, recovery)
        made.hardware.start()
        try:
            await made.all_online()
            yield made
        finally:
            made.board.heal()
            await made.hardware.close()
            made.board.close()

    return make


async def test_a_question_is_asked_again_before_anything_is_lost(rig: Any) -> None:
    async with rig("") as at:
        at.board.fault("i2c1", "nack", for_s=0.08, device="light")
        await at.until(lambda: at.steps()["retry"]["helped"], "a retry that helped")
        assert at.steps()["retry"]["tried"] >= at.steps()["retry"]["helped"]
        assert at.steps()["reopen"]["tried"] == 0
        assert at.said("climate") == [("online", "")]


async def test_an_unplugged_adapter_is_opened_again(rig: Any) -> None:
    async with rig("") as at:
        at.board.fault("i2c1", "unplug")
        await at.until(lambda: len(at.said("climate")) == 2 and len(at.said("light")) == 2, "both lost")
        await at.until(lambda: at.steps()["reopen"]["tried"] >= 2, "tries")
        at.board.heal()
        await at.all_online()
        for device in ("climate", "light"):
            assert at.said(device) == [("online", ""), ("offline", "unplugged"), ("online", "")]
        assert at.said("other") == [("online", "")], "another bus has nothing to do with it"
        assert at.steps()["reopen"]["helped"] == 1
        assert set(at.steps()) == {"retry", "reopen"}, "only what the configuration allows"


async def test_held_lines_are_freed_by_a_fresh_start_of_the_controller(rig: Any) -> None:
    async with rig("rebind = true\n" + POWER) as at:
        assert at.power() == [1], "power on from the start"
        at.handles["i2c1"].wedged = True
        await at.until(lambda: at.steps()["rebind"]["helped"], "the controller started anew")
        await at.all_online()
        steps = at.steps()
        assert (steps["reopen"]["tried"], steps["reopen"]["helped"]) == (3, 0), "the gentle step first"
        assert steps["rebind"] == {"tried": 1, "helped": 1, "failed": 0}
        assert steps["power"]["tried"] == 0
        assert at.handles["i2c1"].detached == 1
        for device in ("climate", "light"):
            (_, (state, reason), *rest) = at.said(device)
            assert state == "offline"
            assert reason in ("timeout", "bus_fault")
            assert rest == [("online", "")], "lost once, back once"
        assert at.said("other") == [("online", "")]


async def test_a_driver_that_did_not_come_back_is_put_back_later(rig: Any) -> None:
    async with rig("rebind = true\n") as at:
        handle, refused, attached = at.handles["i2c1"], [BusError("no such device")] * 3, []
        opened = handle.open

        def attach() -> None:
            if handle.detached:
                if refused:
                    raise refused.pop()
                attached.append(True)

        def open_() -> None:
            if handle.detached and not attached:
                raise BusGone("/dev/i2c-1 is not there")
            opened()

        handle.attach, handle.open, handle.wedged = attach, open_, True
        await at.until(lambda: at.steps()["rebind"]["failed"] == 2, "two steps that could not be finished")
        await at.all_online()
        reopen = at.steps()["reopen"]
        assert (reopen["tried"], reopen["failed"], reopen["helped"]) == (5, 1, 1), "put back with an opening"


async def test_power_is_the_last_step_and_is_spared(rig: Any) -> None:
    async with rig('clear = { bus = "pins", scl = 3, sda = 2 }\n' + POWER) as at:
        at.board.pin("pins", 3, True)
        at.board.pin("pins", 2, False)  # a chip that no clock pulse frees
        handle = at.handles["i2c1"]
        type(handle).detach, keep = lambda self: None, type(handle).detach
        try:
            handle.wedged = True
            await at.until(lambda: at.power()[-2:] == [0, 1], "power off and on")
            handle.wedged = False
            await at.all_online()
            await at.until(lambda: at.steps()["power"]["helped"], "the count")
        finally:
            type(handle).detach = keep
        clear = at.steps()["clear"]
        assert (clear["tried"], clear["failed"]) == (2, 2)
        assert "held low after 9 clock pulses" in clear["error"]
        assert at.power() == [1, 0, 1]


async def test_a_call_that_hangs_is_freed_by_taking_the_power(
    rig: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus_supervisor, "FREE_LIMIT_S", 0.3)
    async with rig(POWER) as at:
        at.board.fault("i2c1", "stuck")
        await at.until(lambda: at.power()[-2:] == [0, 1], "power off and on")
        assert next(f for f in at.hardware.figures() if f["bus"] == "i2c1")["stuck"]
        at.board.heal()
        await at.all_online()
        assert at.steps()["power"]["helped"] == 1
        assert at.said("other") == [("online", "")]
        assert len(at.said("climate")) == 3, at.said("climate")


async def test_an_end_is_no_failed_step(rig: Any) -> None:
    """Ended while the power is off, and the pins are gone: it ends all the same."""
    async with rig('power = { bus = "pins", line = 22, off_s = 10 }\n') as at:
        at.board.fault("i2c1", "stuck")
        step = asyncio.ensure_future(at.hardware.supervisors["i2c1"].recovery.free_stuck_thread())
        await at.until(lambda: at.power()[-1] == 0, "power off")
        at.hardware.supervisors["pins"].bus.fault(BusGone("unplugged"))
        step.cancel()
        await asyncio.wait([step])
        assert step.cancelled()


async def test_one_chip_that_times_out_does_not_fault_the_bus(rig: Any) -> None:
    async with rig("rebind = true") as at:
        handle, real = at.handles["i2c1"], at.handles["i2c1"].transfer

        def one_is_ill(address: int, write: bytes, read_size: int = 0) -> bytes:
            if address == 0x23:
                raise BusTimeout("this chip stretches the clock for ever")
            return bytes(real(address, write, read_size))

        handle.transfer = one_is_ill
        await at.until(lambda: at.said("light")[-1] == ("offline", "timeout"), "the light lost")
        mark = len(at.readings)
        await at.until(
            lambda: len([r for r in at.readings[mark:] if r.device == "climate"]) > 30, "the climate"
        )
        assert at.steps()["reopen"]["tried"] == 0
        assert at.said("climate") == [("online", "")]
        del handle.transfer
        await at.all_online()
