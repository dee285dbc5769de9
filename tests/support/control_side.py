"""The executor with real devices and a real Journal, on a clock and a bus that a test holds in its hands."""

import itertools
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from device_agent.commands.authorization import Actor, Role
from device_agent.commands.control_side import build_control
from device_agent.config import load
from device_agent.driver import (
    Action,
    Actuator,
    ActuatorConfig,
    Driver,
    Flagged,
    NoBus,
    Point,
    Sensor,
    Step,
    Value,
)
from device_agent.errors import DriverError
from device_agent.messages.acks import Ack
from device_agent.messages.commands import Do, Set
from device_agent.network import Caller, TaskKind
from device_agent.store.journal.journal import Journal
from device_agent.store.store_thread import StoreThread
from device_agent.tasks.stream_subscriptions import StreamSubscriptions
from device_agent.testing.clock import SteppedClock
from support.waiting import until_async

LIMIT_S = 10.0


class RelayConfig(ActuatorConfig):
    driver: str = "relay"
    maximum: float = Field(100, description="Of `level`.")


class Relay(Actuator[RelayConfig, NoBus]):
    """Remembers what it was told; `hold` keeps a write from ending, `faults` are what the next ones raise."""

    points = (
        Point("on", type="boolean", write=True),
        Point("level", write=True, minimum=0, maximum=100),
    )
    actions = (Action("pulse", moves=True),)
    told: ClassVar[list[tuple[str, dict[str, Value]]]] = []
    hold: ClassVar[threading.Event] = threading.Event()
    begun: ClassVar[threading.Event] = threading.Event()
    faults: ClassVar[list[Exception | None]] = []

    @classmethod
    def safe_of(cls, config: Any) -> dict[str, Value]:
        return {"on": False, "level": 0}

    @classmethod
    def claims(cls, config: Any) -> tuple[str, ...]:
        return ()

    def open(self) -> None:
        self.values: dict[str, Value] = {"on": False, "level": 0}

    def write(self, values: Mapping[str, Value]) -> dict[str, Value]:
        self.begun.set()
        self.hold.wait(LIMIT_S)
        if self.faults and (fault := self.faults.pop(0)) is not None:
            raise fault
        self.values.update(values)
        self.told.append((self.config.driver, dict(values)))
        return dict(values)

    def do(self, action: str, args: Mapping[str, Value]) -> list[Step]:
        return [Step({"level": 80}, 0.05), Step({"level": 0})]


class Fan(Relay, Sensor[RelayConfig, NoBus]):
    """Tells its values, too, unless `broken`."""

    default_every_s = 0.02
    broken: ClassVar[bool] = False

    def read(self) -> dict[str, Value]:
        if self.broken:
            raise DriverError("the fan's chip answers nonsense")
        return dict(self.values)


class Button(Sensor[Any, NoBus]):
    points = (Point("active", type="boolean"),)
    default_every_s = 0.02
    pressed: ClassVar[bool | Flagged | None] = False

    def read(self) -> dict[str, Value | Flagged]:
        return {"active": self.pressed}


DRIVERS: dict[str, type[Driver[Any, Any]]] = {"relay": Relay, "fan": Fan, "button": Button}
CONFIG = """
[agent]
name = "a"
[devices.up]
driver = "relay"
safe = false
interlock = ["motor"]
[devices.down]
driver = "relay"
safe = false
interlock = ["motor"]
[devices.heater]
driver = "relay"
safe = false
min_off_s = 60
"""

ALICE, BOB = Caller("org_a", "alice"), Caller("org_b", "bob")
OWNER = Actor("local", "the owner", Caller(), role=Role.OWNER)


def actor(caller: Caller, holder: str = "", kind: TaskKind = "pipe") -> Actor:
    return Actor(holder or f"task-{caller.user}", f"session {caller.user}", caller, kind)


# A command's id is never used again, nor in a later life of the same journal.
NUMBERS = itertools.count(1)


class Ground:
    """`async with Ground(tmp_path, more) as ground:`; `more` is configuration."""

    def __init__(self, folder: Path, more: str = '[access]\ndrive = "anyone"\n') -> None:
        Relay.told, Relay.hold, Relay.begun = [], threading.Event(), threading.Event()
        Relay.hold.set()
        Relay.faults = []
        Button.pressed = Fan.broken = False
        path = folder / "agent.toml"
        path.write_text(f'{CONFIG}\n[state]\ndirectory = "{folder}"\n{more}')
        self.config = load(path, load_driver=DRIVERS.__getitem__)
        self.clock = SteppedClock()
        self.store = StoreThread()
        self.journal = Journal(folder / "journal.db", self.store)
        self.delegation_actions: dict[str, Any] = {}
        control = build_control(
            self.config, self.journal, self.clock, delegation_actions=self.delegation_actions
        )
        self.control, self.latch, self.devices = control, control.latch, control.devices
        self.safe_states, self.stop, self.executor = (
            control.safe_states,
            control.emergency_stop,
            control.executor,
        )
        self.subscriptions = StreamSubscriptions(self.clock)
        self._hardware = control.make_hardware(
            lambda name, config: NoBus(), control.dispatcher(self.subscriptions)
        )

    async def __aenter__(self) -> "Ground":
        await self.journal.open()
        await self.control.recall()
        self._hardware.start()
        await until_async(lambda: all(device.online for device in self.devices.values()))
        return self

    async def __aexit__(self, *_: object) -> None:
        Relay.hold.set()
        await self.control.close()
        await self._hardware.close()
        await self.journal.close()
        await self.store.close()

    # -- asking ---------------------------------------------------------------------------------------------

    def word(self, device: str, **values: Any) -> Set:
        return Set(kind="set", id=f"c{next(NUMBERS)}", device=device, values=values)

    async def set(self, who: Actor, device: str, **values: Any) -> str:
        """The state of the ack, or the code of its error."""
        return told(await self.executor.execute(self.word(device, **values), who, age_ms=0.0))

    async def pulse(self, who: Actor, device: str) -> str:
        word = Do(kind="do", id=f"c{next(NUMBERS)}", device=device, action="pulse")
        return told(await self.executor.execute(word, who, age_ms=0.0))


def told(ack: Ack) -> str:
    return str(ack.state if ack.error is None else ack.error.code)
