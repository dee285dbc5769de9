"""A BMP280 with the calibration of the example in its data sheet."""

from device_agent_drivers.simulated.bosch import ID, SimulatedBosch


class SimulatedBmp280(SimulatedBosch):
    """Quantities: temperature (Cel), pressure (hPa)."""

    def __init__(self, address: int = 0x76) -> None:
        super().__init__(address, {ID: b"\x58"})
