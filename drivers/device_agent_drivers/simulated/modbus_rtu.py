"""A Modbus unit made from the configuration: its registers hold the points' values."""

import struct
from typing import TYPE_CHECKING

from device_agent.testing.chips import Physical, SerialChip
from device_agent_drivers.modbus_points import ModbusPoint

if TYPE_CHECKING:
    from device_agent_drivers.modbus_rtu import ModbusRtuConfig

ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE = 1, 2, 3


class SimulatedModbus(SerialChip):
    """Quantities are the points, in their units; a writable one is also an output.

    Registers that no point has do not exist: reading across a gap is refused, as by many a real meter.
    """

    def __init__(self, config: "ModbusRtuConfig") -> None:
        self._config = config
        self._orders = config.word_order, config.byte_order
        self.tables: dict[str, dict[int, int]] = {"coil": {}, "discrete": {}, "holding": {}, "input": {}}
        self.requests: list[bytes] = []
        """Every request to this unit, without its checksum."""
        self._received = b""
        world: dict[str, Physical] = {}
        safe = config.safe_values()
        for name, point in config.points.items():
            first = safe.get(name)
            world[name] = first if first is not None else (False if point.is_boolean else 0.0)
        super().__init__(world)
        for name in world:
            self.changed(name)

    def outputs(self) -> dict[str, Physical]:
        return {name: self._value(name) for name, point in self._config.points.items() if point.write}

    def quantities(self) -> dict[str, Physical]:
        return {**super().quantities(), **self.outputs()}

    def changed(self, quantity: str) -> None:
        point, value = self._config.points[quantity], self._quantities[quantity]
        table = self.tables[point.kind]
        if point.is_bit:
            table[point.address] = int(bool(value))
        elif point.bit is not None:
            table[point.address] = table.get(point.address, 0) & ~(1 << point.bit) | bool(value) << point.bit
        else:
            words = point.encode(value, *self._orders)
            for index in range(point.size):
                table[point.address + index] = int.from_bytes(words[2 * index : 2 * index + 2], "big")

    def _value(self, name: str) -> Physical:
        point = self._config.points[name]
        value = (
            bool(self.tables[point.kind][point.address])
            if point.is_bit
            else point.decode(self._words(point), *self._orders)
        )
        return value if isinstance(value, bool | int | float) else self._quantities[name]

    def _words(self, point: ModbusPoint) -> bytes:
        table = self.tables[point.kind]
        return b"".join(table[point.address + index].to_bytes(2, "big") for index in range(point.size))

    # -- frames ----------------------------------------

    def receive(self, data: bytes) -> None:
        self._received += data
        while len(self._received) >= 8:
            size = 8
            if self._received[1] in (15, 16):
                size = 9 + self._received[6]
            if len(self._received) < size:
                return
            frame, self._received = self._received[:size], self._received[size:]
            if _crc(frame) != 0:
                self._received = b""  # whatever it was, the line is silent before the next
            elif frame[0] == self._config.unit:
                self.requests.append(frame[:-2])
                body = frame[:1] + self._answer(frame[1:-2])
                self.say(body + _crc(body).to_bytes(2, "little"))

    def _answer(self, request: bytes) -> bytes:
        function = request[0]
        address, count = struct.unpack(">HH", request[1:5])
        try:
            if function in (1, 2):
                bits = self._read("coil" if function == 1 else "discrete", address, count)
                packed = sum(bit << place for place, bit in enumerate(bits)).to_bytes(
                    (count + 7) // 8, "little"
                )
                return bytes((function, len(packed))) + packed
            if function in (3, 4):
                words = self._read("holding" if function == 3 else "input", address, count)
                return bytes((function, 2 * count)) + b"".join(word.to_bytes(2, "big") for word in words)
            self._store(function, address, count, request[6:])
        except KeyError:
            return bytes((function | 0x80, ILLEGAL_ADDRESS))
        except ValueError:
            return bytes((function | 0x80, ILLEGAL_VALUE))
        except NotImplementedError:
            return bytes((function | 0x80, ILLEGAL_FUNCTION))
        return request[:5]

    def _read(self, kind: str, address: int, count: int) -> list[int]:
        return [self.tables[kind][at] for at in range(address, address + count)]

    def _store(self, function: int, address: int, count: int, data: bytes) -> None:
        if function == 5:
            if count not in (0, 0xFF00):
                raise ValueError(count)
            values, kind = [int(count > 0)], "coil"
        elif function == 6:
            values, kind = [count], "holding"
        elif function == 15:
            values, kind = [data[at // 8] >> at % 8 & 1 for at in range(count)], "coil"
        elif function == 16:
            values = [int.from_bytes(data[2 * at : 2 * at + 2], "big") for at in range(count)]
            kind = "holding"
        else:
            raise NotImplementedError
        self._read(kind, address, len(values))
        self.tables[kind].update(enumerate(values, address))


def _crc(data: bytes) -> int:
    """By long division of the reversed bits, another way than the driver's; 0 over a whole frame."""
    remainder = 0xFFFF
    for place in range(8 * len(data)):
        bit = data[place // 8] >> place % 8 & 1
        carry = (remainder & 1) ^ bit
        remainder >>= 1
        if carry:
            remainder ^= 0xA001
    return remainder
