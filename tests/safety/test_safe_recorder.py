"""What the guard writes, taken down from a driver: nothing that did not go out is waited for."""

from typing import Any

from device_agent.bus.recipe import Recipe, Steps
from device_agent.driver import SerialBus
from device_agent.safety.safe_recorder import open_and_record, recorded
from device_agent_drivers.modbus import framed
from device_agent_drivers.modbus_rtu import ModbusRtu, ModbusRtuConfig


class Relays(SerialBus):
    """Unit 17: repeats each write, and has every coil off."""

    baud = 9600

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.steps: list[Steps] = []
        self.waits_in_vain = 0
        self._answer = b""

    def write(self, data: bytes) -> None:
        self.sent.append(data)
        self._answer = data if data[1] == 5 else framed(b"\x11\x01\x01\x00")

    def read(self, size: int, timeout_s: float) -> bytes:
        part, self._answer = self._answer[:size], self._answer[size:]
        self.waits_in_vain += not part and timeout_s > 0
        return part

    def discard_input(self) -> None:
        self._answer = b""

    def set_baud(self, baud: int) -> None: ...

    def recipe(self, steps: Steps) -> Recipe:
        self.steps.append(steps)
        return Recipe("bytes", {}, -1)


def relays(bus: Relays) -> Any:
    points = {
        name: {"kind": "coil", "address": n, "write": True, "safe": False} for n, name in enumerate("ab")
    }
    return ModbusRtu(
        ModbusRtuConfig.model_validate({"unit": 17, "points": points}), recorded(bus), lambda _: None
    )


def test_a_unit_that_answers_is_not_waited_for_in_vain() -> None:
    """What the rehearsal of `safe` would have sent is no question that the unit owes an answer to."""
    bus = Relays()
    driver = relays(bus)
    open_and_record("relays", driver)
    assert bus.waits_in_vain == 0
    assert driver.read() == {"a": False, "b": False}
    writes = [step for step in bus.steps[0] if isinstance(step, bytes)]
    assert writes == [framed(bytes((17, 5, 0, n, 0, 0))) for n in (0, 1)]
