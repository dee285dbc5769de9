"""TI TMP117: temperature (data sheet SNOSD82D). One conversion of eight averages a second, by itself."""

from typing import Any, Literal

from device_agent.driver import (
    ChipReset,
    DriverConfig,
    DriverError,
    Flag,
    Flagged,
    I2cBus,
    Point,
    Sensor,
    Unit,
    Value,
    WrongChip,
)
from device_agent.schema import Field

# Section 7.6, register map: 16 bits each
TEMPERATURE = 0x00
CONFIGURATION = 0x01
DEVICE_ID = 0x0F

DID = 0x117
OTHER_IDS = {
    0x116: "a TMP116",
    0x000: "no chip that answers sensibly",
    0xFFF: "no chip that answers sensibly",
}
SETTINGS = 0b00_100_01 << 5  # continuous, 1 s cycle, 8 averages, alert mode: 0x0220
SETTINGS_MASK = 0x0FFC  # without the status bits above and the soft reset below
EEPROM_BUSY = 1 << 12
SOFT_RESET = 1 << 1

RESET_S = 0.002
RESET_TRIES = 10
FIRST_S = 0.140  # 8 conversions at the maximum of section 6.5
NOTHING_CONVERTED = 0x8000  # -256 degrees: the register until the first conversion has ended
CELSIUS_PER_BIT = 1 / 128


class Tmp117Config(DriverConfig):
    driver: Literal["tmp117"] = "tmp117"
    address: Literal[0x48, 0x49, 0x4A, 0x4B] = Field(0x48, description="By the pin ADD0.")


class Tmp117(Sensor[Tmp117Config, I2cBus]):
    """Waits once after `open` for the first conversion; from then on the latest one is available at once."""

    points = (Point("temperature", Unit.CELSIUS, low=-55, high=150, description="Of the chip."),)

    @staticmethod
    def simulator(config: Tmp117Config) -> Any:
        from device_agent_drivers.simulated.tmp117 import SimulatedTmp117

        return SimulatedTmp117(config.address)

    @classmethod
    def identify(cls, bus: I2cBus, place: int) -> str:
        found = bus.read_u16(place, DEVICE_ID)
        if found & 0xFFF != DID:  # the four bits above are the revision
            known = OTHER_IDS.get(found & 0xFFF, "no TMP117")
            raise WrongChip(f"device id {found:#06x} at {place:#04x}, not 0x?117: this is {known}")
        return f"TMP117, device id {found:#06x}"

    def open(self) -> None:
        address = self.config.address
        self.identify(self.bus, address)
        # Brings limits and offset back from the chip's own memory, whoever changed them
        self.bus.write_u16(address, CONFIGURATION, SOFT_RESET)
        self._await_memory()
        self.bus.write_u16(address, CONFIGURATION, SETTINGS)
        self.settle_s = FIRST_S

    def _await_memory(self) -> None:
        for _ in range(RESET_TRIES):
            self.sleep(RESET_S)
            if not self.bus.read_u16(self.config.address, CONFIGURATION) & EEPROM_BUSY:
                return
        raise DriverError(
            f"TMP117 at {self.config.address:#04x}: its memory is still busy "
            f"{RESET_TRIES * RESET_S * 1000:g} ms after a reset; check its supply"
        )

    def read(self) -> dict[str, Value | Flagged]:
        address = self.config.address
        found = self.bus.read_u16(address, CONFIGURATION) & SETTINGS_MASK
        if found != SETTINGS:
            raise ChipReset(
                f"TMP117 at {address:#04x} lost its settings: {found:#06x} instead of {SETTINGS:#06x}; "
                "check its supply"
            )
        raw = self.bus.read_s16(address, TEMPERATURE)
        self.settle_s = 0.0
        if raw & 0xFFFF == NOTHING_CONVERTED:
            return {"temperature": Flagged(None, Flag.POWER_ON_VALUE)}
        return {"temperature": raw * CELSIUS_PER_BIT}
