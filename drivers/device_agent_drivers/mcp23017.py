"""Microchip MCP23017: sixteen pins on I2C (data sheet DS20001952)."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from device_agent.driver import ChipReset, DriverError, Value
from device_agent.schema import Field
from device_agent_drivers.expander import Expander, ExpanderConfig

# Table 3-3, addresses with IOCON.BANK = 0: port A, and port B one above
IODIR, IPOL, GPINTEN, IOCON, GPPU, GPIO, OLAT = 0x00, 0x02, 0x04, 0x0A, 0x0C, 0x12, 0x14
# Where IOCON lies with BANK = 1. With BANK = 0 that is GPINTENB, where a 0 does no harm.
IOCON_BANK_1 = 0x05
REGISTERS = 0x16

CHECKED = {"IODIR": IODIR, "IPOL": IPOL, "IOCON": IOCON, "GPPU": GPPU, "OLAT": OLAT}


class Mcp23017Config(ExpanderConfig):
    """`a7` and `b7` are best left to outputs: as inputs they may spoil a transfer (sheet, revision D)."""

    pins: ClassVar[tuple[str, ...]] = tuple(f"{port}{bit}" for port in "ab" for bit in range(8))

    driver: Literal["mcp23017"] = "mcp23017"
    address: int = Field(0x20, ge=0x20, le=0x27, description="0x20 to 0x27, by the pins A0 to A2.")
    pull_up: list[str] = Field([], max_length=16, description="Inputs with the chip's own 100 kOhm pull-up.")

    def lists(self) -> dict[str, list[str]]:
        return {**super().lists(), "pull_up": self.pull_up}


class Mcp23017(Expander[Mcp23017Config]):
    """Unused pins stay inputs. Every access checks that the chip still has its settings."""

    example = """
inputs = ["a0", "a1"]
outputs = ["b0"]
safe = false
"""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._directions = ~self._outputs & 0xFFFF  # 1 is an input
        self._pull_ups = self.config.mask(self.config.pull_up)

    @staticmethod
    def simulator(config: Mcp23017Config) -> Any:
        from device_agent_drivers.simulated.mcp23017 import SimulatedMcp23017

        return SimulatedMcp23017(config)

    def open(self) -> None:
        address, bus = self.config.address, self.bus
        # The program before may have set BANK, which moves every register; both writes together clear it.
        bus.write_u8(address, IOCON_BANK_1, 0)
        bus.write_u8(address, IOCON, 0)
        self._latch = 0
        self._latch = self._latched(type(self).safe_of(self.config))
        # Latch before direction: an output must not show another level first, not even for a moment.
        for register, value in (
            (OLAT, self._latch),
            (GPPU, self._pull_ups),
            (IPOL, 0),
            (GPINTEN, 0),
            (IODIR, self._directions),
        ):
            bus.write(address, register, value.to_bytes(2, "little"))
        if wrong := self._differing(bus.read(address, IODIR, REGISTERS)):
            raise DriverError(f"no MCP23017 at {address:#04x}: it does not keep what is written ({wrong})")

    def read(self) -> dict[str, Value]:
        levels = self._checked()
        return self._logical(levels, (point.name for point in self.points))

    def write(self, values: Mapping[str, Value]) -> dict[str, Value]:
        self._checked()  # a chip that was reset has its outputs off; it is opened again, not half driven
        before, latch = self._latch, self._latched(values)
        changed = before ^ latch
        data = latch.to_bytes(2, "little")
        if changed & 0xFF and changed & 0xFF00:
            self.bus.write(self.config.address, OLAT, data)
        elif changed:
            port = 0 if changed & 0xFF else 1
            self.bus.write(self.config.address, OLAT + port, data[port : port + 1])
        self._latch = latch
        levels = int.from_bytes(self.bus.read(self.config.address, GPIO, 2), "little")
        return self._logical(levels, values)

    def _checked(self) -> int:
        """The level of every pin. Raises ChipReset where a setting is not ours any more."""
        data = self.bus.read(self.config.address, IODIR, REGISTERS)
        if wrong := self._differing(data):
            raise ChipReset(
                f"MCP23017 at {self.config.address:#04x} lost its settings: {wrong}; check its supply"
            )
        return int.from_bytes(data[GPIO : GPIO + 2], "little")

    def _differing(self, data: bytes) -> str:
        wanted = {
            "IODIR": self._directions,
            "IPOL": 0,
            "IOCON": 0,
            "GPPU": self._pull_ups,
            "OLAT": self._latch,
        }
        found = {n: int.from_bytes(data[at : at + 2], "little") for n, at in CHECKED.items()}
        return ", ".join(f"{n} is {found[n]:#06x}" for n in CHECKED if found[n] != wanted[n])
