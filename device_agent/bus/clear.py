"""The I2C bus clear: a chip that was cut off in the middle of a byte holds SDA until it has been clocked out.

NXP UM10204, section 3.1.16: up to nine clock pulses, then a stop condition. The controller must be off the
lines meanwhile.
"""

import time
from collections.abc import Callable

from device_agent.bus.gpio import GpioBus, OutputLine
from device_agent.errors import BusError

PULSES = 9
HALF_S = 5e-6  # 100 kHz; a call into the kernel takes as long


def clear_i2c(
    pins: GpioBus, scl: int | str, sda: int | str, sleep: Callable[[float], None] = time.sleep
) -> int:
    """Clock the bus free; the pulses it took. Raises BusError where SDA or SCL stays low."""
    clock = pins.output(scl, active=True, drive="open-drain")
    try:
        sleep(HALF_S)
        if not clock.read():
            raise BusError(f"SCL (line {scl}) is held low: no clock pulse can be made; check the wiring")
        pulses = _pulse(pins, sda, clock, sleep)
        data = pins.output(sda, active=False, drive="open-drain")
        try:
            sleep(HALF_S)
            data.write(True)  # SDA rises while SCL is high: a stop
            sleep(HALF_S)
            if not data.read():
                raise BusError(
                    f"SDA (line {sda}) is held low after {pulses} clock pulses: only taking away a chip's "
                    "power can help"
                )
        finally:
            data.close()
    finally:
        clock.close()
    return pulses


def _pulse(pins: GpioBus, sda: int | str, clock: OutputLine, sleep: Callable[[float], None]) -> int:
    data = pins.input(sda, edges=False)
    try:
        for pulses in range(PULSES):
            if data.read():
                return pulses
            for level in (False, True):
                clock.write(level)
                sleep(HALF_S)
        return PULSES
    finally:
        data.close()
