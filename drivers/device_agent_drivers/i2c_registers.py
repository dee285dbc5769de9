"""Any I2C chip with plain registers, described in the configuration alone: no code for a simple chip.

Each point is a register or a part of one; what needs commands, checksums or waits needs a driver of its own.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from device_agent.driver import Actuator, ChipReset, I2cBus, Point, Sensor, Value, WrongChip
from device_agent.schema import Field, model_validator
from device_agent_drivers.configured import ConfiguredPoints, PointName
from device_agent_drivers.i2c_register_map import RegisterPoint, RegisterValue, Setup


class I2cRegistersConfig(ConfiguredPoints):
    driver: Literal["i2c-registers"] = "i2c-registers"
    address: int = Field(ge=0x08, le=0x77, description="The chip's seven-bit address.")
    register_bytes: Literal[1, 2] = Field(1, description="Length of a register's address on the wire.")
    id: RegisterValue | None = Field(None, description="A register that tells this chip from others.")
    setup: tuple[Setup, ...] = Field((), max_length=64, description="What is written first, in this order.")
    points: Mapping[PointName, RegisterPoint] = Field(
        min_length=1, max_length=64, description="The device's points by name."
    )

    @model_validator(mode="after")
    def _addresses_fit(self) -> "I2cRegistersConfig":
        registers = [options.register_ for options in self.points.values()]
        registers += [entry.register_ for entry in (*self.setup, self.id) if entry is not None]
        highest = max(registers)
        if highest >> 8 * self.register_bytes:
            raise ValueError(f"register {highest:#x} needs `register_bytes = 2`")
        return self


class I2cRegisters(Sensor[I2cRegistersConfig, I2cBus], Actuator[I2cRegistersConfig, I2cBus]):
    """Reads each register once a reading, and never one that no point names."""

    example = """
address = 0x48
points.temperature = { register = 0, width_bits = 16, signed = true, unit = "Cel" }
scale.temperature = 0.0078125
"""

    @classmethod
    def points_of(cls, config: I2cRegistersConfig) -> tuple[Point, ...]:
        return tuple(options.point(name) for name, options in config.points.items())

    @classmethod
    def safe_of(cls, config: I2cRegistersConfig) -> dict[str, Value]:
        return config.safe_values()

    @staticmethod
    def simulator(config: I2cRegistersConfig) -> Any:
        from device_agent_drivers.simulated.i2c_registers import SimulatedRegisters

        return SimulatedRegisters(config)

    def open(self) -> None:
        wanted = self.config.id
        if wanted is not None:
            found = self._read(wanted.register_, len(wanted.data))
            if not wanted.holds(found):
                raise WrongChip(
                    f"register {wanted.register_:#04x} at {self.config.address:#04x} holds "
                    f"{int.from_bytes(found, wanted.byte_order):#x}, not {wanted.value:#x}: "
                    "another chip answers"
                )
        for entry in self.config.setup:
            self._write(entry.register_, entry.data)
        if self.safe_of(self.config):
            self.safe()

    def read(self) -> dict[str, Value]:
        for entry in self.config.setup:
            if entry.check and not entry.holds(found := self._read(entry.register_, len(entry.data))):
                raise ChipReset(
                    f"register {entry.register_:#04x} at {self.config.address:#04x} holds "
                    f"{int.from_bytes(found, entry.byte_order):#x} instead of {entry.value:#x} from `setup`; "
                    "check the supply, or say `check = false` if it never reads as written"
                )
        return self._read_points(self.config.points)

    def write(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Points that share a register go in one write."""
        registers: dict[tuple[int, int], bytes] = {}
        for name, value in values.items():
            options = self.config.points[name]
            place = (options.register_, options.size_bytes)
            if place not in registers:
                whole = options.mask is None
                registers[place] = bytes(options.size_bytes) if whole else self._read(*place)
            registers[place] = options.encode(value, registers[place])
        for (register, _), data in registers.items():
            self._write(register, data)
        return self._read_points(values)

    def _read_points(self, names: Iterable[str]) -> dict[str, Value]:
        registers: dict[tuple[int, int], bytes] = {}
        values: dict[str, Value] = {}
        for name in names:
            options = self.config.points[name]
            place = (options.register_, options.size_bytes)
            if place not in registers:
                registers[place] = self._read(*place)
            values[name] = options.decode(registers[place])
        return values

    def _read(self, register: int, size_bytes: int) -> bytes:
        return self.bus.transfer(self.config.address, self._address_of(register), size_bytes)

    def _write(self, register: int, data: bytes) -> None:
        self.bus.transfer(self.config.address, self._address_of(register) + data)

    def _address_of(self, register: int) -> bytes:
        return register.to_bytes(self.config.register_bytes, "big")
