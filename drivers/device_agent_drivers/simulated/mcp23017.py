"""An MCP23017 by its data sheet: both register maps (IOCON.BANK), both ways of counting on (IOCON.SEQOP)."""

from typing import TYPE_CHECKING

from device_agent.testing.chips import Physical, RegisterChip
from device_agent_drivers.simulated.expander import Wiring

if TYPE_CHECKING:
    from device_agent_drivers.mcp23017 import Mcp23017Config

IODIR, IPOL, IOCON, GPPU, INTF, INTCAP, GPIO, OLAT = 0x00, 0x02, 0x0A, 0x0C, 0x0E, 0x10, 0x12, 0x14
BANK, SEQOP = 0x80, 0x20
REGISTERS = 0x16


class SimulatedMcp23017(RegisterChip):
    """Quantities: each configured input. Outputs: each configured output, false while it is not driven.

    Registers are held under their addresses of BANK = 0, whatever the bank bit says.
    """

    def __init__(self, config: "Mcp23017Config") -> None:
        self._wiring = Wiring(config, config.mask(config.pull_up))
        super().__init__(
            {IODIR: b"\xff\xff" + bytes(REGISTERS - 2)},
            self._wiring.quantities(),
            read_only=(INTF, INTF + 1, INTCAP, INTCAP + 1),
        )
        self.address = config.address

    def outputs(self) -> dict[str, Physical]:
        config = self._wiring.config
        driven = ~self._pair(IODIR)
        values = self._wiring.logical(self._pair(OLAT), config.outputs)
        return {name: value if driven & config.mask((name,)) else False for name, value in values.items()}

    def _pair(self, register: int) -> int:
        return self[register] | self[register + 1] << 8

    # -- the two register maps ----------------------------------------

    def _held_at(self, pointer: int) -> int | None:
        """The register at an address of the present map; None where there is none."""
        if not self[IOCON] & BANK:
            register = pointer if pointer < REGISTERS else None
        else:
            port, offset = pointer >> 4, pointer & 0xF
            register = offset * 2 + port if port < 2 and offset < REGISTERS // 2 else None
        return IOCON if register == IOCON + 1 else register

    def _take(self, data: bytes) -> None:
        for value in data:
            register = self._held_at(self.pointer)
            if register is not None and register not in self._read_only:
                self.written.add(register)
                self[register] = self.on_write(register, value)
            self._step()

    def _give(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            register = self._held_at(self.pointer)
            data.append(0 if register is None else self.on_read(register, self[register]))
            self._step()
        return bytes(data)

    def _step(self) -> None:
        bank, sequential = self[IOCON] & BANK, not self[IOCON] & SEQOP
        if sequential:
            self.pointer = (self.pointer + 1) % (0x20 if bank else REGISTERS)
        elif not bank:
            self.pointer ^= 1  # section 3.2.1: byte mode goes to and fro between the two ports

    # -- pins ----------------------------------------

    def on_write(self, register: int, value: int) -> int:
        if register in (GPIO, GPIO + 1):
            self[register - GPIO + OLAT] = value
        return value

    def on_read(self, register: int, value: int) -> int:
        if register not in (GPIO, GPIO + 1):
            return value
        port = register - GPIO
        inputs = self[IODIR + port]
        outside = self._wiring.outside(self._quantities) >> 8 * port & 0xFF
        levels = outside & inputs | self[OLAT + port] & ~inputs
        return (levels ^ self[IPOL + port] & inputs) & 0xFF
