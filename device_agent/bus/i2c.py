"""I2C: transactions on one adapter, used by drivers on the bus's thread."""

from abc import abstractmethod
from typing import ClassVar

from device_agent.bus.core import Handle


class I2cBus(Handle):
    """What a driver sees of an I2C adapter. Words are big-endian, as most chips have them.

    Every call raises NoAnswer (NACK at this address), BusTimeout (stuck lines), BusHeld (a kernel driver owns
    the address), BusGone (adapter removed) or BusError.
    """

    kind: ClassVar[str] = "i2c"
    plain: bool = True
    """Whether the adapter carries any transfer; False: what SMBus can express. Known once it is open."""

    @abstractmethod
    def transfer(self, address: int, write: bytes, read_size: int = 0) -> bytes:
        """Write `write`, then with a repeated start read `read_size` bytes. Either part may be empty."""

    @abstractmethod
    def present(self, address: int) -> bool:
        """Whether a chip acknowledges this address, by the probe that disturbs least."""

    def read(self, address: int, register: int, size: int) -> bytes:
        return self.transfer(address, bytes((register,)), size)

    def write(self, address: int, register: int, data: bytes) -> None:
        self.transfer(address, bytes((register,)) + data)

    def read_u8(self, address: int, register: int) -> int:
        return self.read(address, register, 1)[0]

    def write_u8(self, address: int, register: int, value: int) -> None:
        self.write(address, register, bytes((value,)))

    def read_u16(self, address: int, register: int) -> int:
        return int.from_bytes(self.read(address, register, 2), "big")

    def read_s16(self, address: int, register: int) -> int:
        return int.from_bytes(self.read(address, register, 2), "big", signed=True)

    def write_u16(self, address: int, register: int, value: int) -> None:
        self.write(address, register, value.to_bytes(2, "big"))
