"""ST VL53L0X: distance by time of flight (data sheet DocID029104, API STSW-IMG005).

Single ranges; a number is a distance only where the chip itself calls it valid. Every wait has a limit.
"""

from collections.abc import Callable, Iterable
from typing import Any, Literal

from device_agent.driver import (
    ChipReset,
    DriverConfig,
    DriverError,
    Flag,
    Flagged,
    I2cBus,
    NoAnswer,
    Point,
    Sensor,
    Unit,
    Value,
    WrongChip,
)
from device_agent.schema import Field
from device_agent_drivers import vl53l0x_tuning as tuning

SYSRANGE_START = 0x00
SEQUENCE_CONFIG = 0x01
INTERRUPT_CONFIG = 0x0A
INTERRUPT_CLEAR = 0x0B
INTERRUPT_STATUS = 0x13
RANGE_STATUS = 0x14  # 12 bytes of result, the distance in the last two
SIGNAL_RATE_LIMIT = 0x44
MSRC_CONTROL = 0x60
FINAL_RANGE_TIMEOUT = 0x71
SPAD_MEMORY_READY = 0x83
GPIO_ACTIVE_HIGH = 0x84
I2C_MODE = 0x88
PADS_2V8 = 0x89
STOP_VARIABLE = 0x91
SPAD_INFO = 0x92
SPAD_ENABLES = 0xB0
SOFT_RESET = 0xBF
MODEL_ID = 0xC0  # 0xEE, 0xAA
PAGE = 0xFF

MODEL = b"\xee\xaa"
STEPS = 0xE8  # final range, pre-range, DSS; at power-on 0xFF
NEW_SAMPLE = 0x04
QUARTER_MCPS = 0x0020  # 0.25 million counts a second in 9.7 bits

WAIT_STEP_S = 0.005
WAIT_TRIES = 60
# What a range may take beyond its budget
OVERTIME_S = 0.005


class Vl53l0xConfig(DriverConfig):
    driver: Literal["vl53l0x"] = "vl53l0x"
    address: int = Field(0x29, ge=0x08, le=0x77, description="0x29 unless something has moved it.")
    timing_budget_ms: int = Field(33, ge=20, le=1000, description="Time for one range; longer is steadier.")
    io_2v8: bool = Field(True, description="The bus is pulled up to 2.8 V or more, not to 1.8 V.")


class Vl53l0x(Sensor[Vl53l0xConfig, I2cBus]):
    """`trigger` starts a range, `read` fetches it."""

    default_every_s = 1.0
    points = (Point("distance", Unit.METRE, low=0, high=2, description="To the nearest target."),)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.settle_s = self.config.timing_budget_ms / 1000 + OVERTIME_S
        self._stop_variable = 0

    @staticmethod
    def simulator(config: Vl53l0xConfig) -> Any:
        from device_agent_drivers.simulated.vl53l0x import SimulatedVl53l0x

        return SimulatedVl53l0x(config.address)

    @classmethod
    def identify(cls, bus: I2cBus, place: int) -> str:
        found = bus.read(place, MODEL_ID, 2)
        if found != MODEL:
            raise WrongChip(f"model id {found.hex(' ')} at {place:#04x}, not ee aa: this is no VL53L0X")
        return f"VL53L0X, model id {found.hex(' ')}"

    # -- life ---------------------------------------------------------------------------------------------

    def open(self) -> None:
        self._identify()
        self._reset()
        self._initialize()
        self._set_spads()
        self._write_all(tuning.TUNING)
        self._write(INTERRUPT_CONFIG, NEW_SAMPLE)
        self._write(GPIO_ACTIVE_HIGH, self._read(GPIO_ACTIVE_HIGH) & ~0x10)
        self._write(INTERRUPT_CLEAR, 1)
        timeout = tuning.final_range_timeout(self.config.timing_budget_ms * 1000)
        self.bus.write_u16(self.config.address, FINAL_RANGE_TIMEOUT, timeout)
        self._calibrate(0x01, 0x40, "voltage calibration")
        self._calibrate(0x02, 0x00, "phase calibration")
        self._write(SEQUENCE_CONFIG, STEPS)

    def _identify(self) -> None:
        found = self.bus.read(self.config.address, MODEL_ID, 2)
        if found != MODEL:
            # The program before may have left another page open
            self._write(PAGE, 0)
            found = self.bus.read(self.config.address, MODEL_ID, 2)
        if found != MODEL:
            raise WrongChip(
                f"model id {found[0]:#04x} {found[1]:#04x} at {self.config.address:#04x}, not 0xee 0xaa: "
                "this is no VL53L0X"
            )

    def _reset(self) -> None:
        self._write(SOFT_RESET, 0)
        self._await("hold still in reset", lambda: self._model() == 0)
        self._write(SOFT_RESET, 1)
        self._await("start after its reset", lambda: self._model() == MODEL[0])

    def _model(self) -> int:
        try:
            return self._read(MODEL_ID)
        except NoAnswer:  # while it starts
            return 0

    def _initialize(self) -> None:
        """DataInit of the API."""
        if self.config.io_2v8:
            self._write(PADS_2V8, self._read(PADS_2V8) | 1)
        self._write(I2C_MODE, 0)
        self._write_all(tuning.UNLOCK)
        self._stop_variable = self._read(STOP_VARIABLE)
        self._write_all(tuning.LOCK)
        self._write(MSRC_CONTROL, self._read(MSRC_CONTROL) | 0x12)  # no limit checks before the final range
        self.bus.write_u16(self.config.address, SIGNAL_RATE_LIMIT, QUARTER_MCPS)
        self._write(SEQUENCE_CONFIG, 0xFF)

    def _set_spads(self) -> None:
        """Enable the reference SPADs that the chip's memory names."""
        self._write_all((*tuning.UNLOCK, (PAGE, 0x06)))
        self._write(SPAD_MEMORY_READY, self._read(SPAD_MEMORY_READY) | 0x04)
        self._write_all(tuning.ASK_SPADS)
        self._await("read its SPAD memory", lambda: self._read(SPAD_MEMORY_READY) != 0)
        self._write(SPAD_MEMORY_READY, 1)
        info = self._read(SPAD_INFO)
        self._write_all(tuning.ASKED_SPADS)
        self._write(SPAD_MEMORY_READY, self._read(SPAD_MEMORY_READY) & ~0x04)
        self._write_all(((PAGE, 0x01), *tuning.LOCK))

        good = self.bus.read(self.config.address, SPAD_ENABLES, 6)
        enabled = tuning.reference_spads(good, info & 0x7F, aperture=bool(info & 0x80))
        if enabled is None:
            raise DriverError(
                f"VL53L0X at {self.config.address:#04x}: its memory asks for {info & 0x7F} reference SPADs "
                f"and has fewer good ones ({good.hex(' ')}); the chip or its connection is bad"
            )
        self._write_all(tuning.SET_SPADS)
        self.bus.write(self.config.address, SPAD_ENABLES, enabled)

    def _calibrate(self, steps: int, how: int, what: str) -> None:
        self._write(SEQUENCE_CONFIG, steps)
        self._write(SYSRANGE_START, 0x01 | how)
        self._await(f"end its {what}", self._ready)
        self._write(INTERRUPT_CLEAR, 1)
        self._write(SYSRANGE_START, 0)

    # -- ranging ------------------------------------------------------------------------------------------

    def trigger(self) -> None:
        self._check_configured()
        self._write(INTERRUPT_CLEAR, 1)
        self._write_all((*tuning.UNLOCK, (STOP_VARIABLE, self._stop_variable), *tuning.LOCK))
        self._write(SYSRANGE_START, 1)

    def read(self) -> dict[str, Value | Flagged]:
        if not self._ready():
            self.sleep(WAIT_STEP_S)
            if not self._ready():
                self._check_configured()
                return {"distance": Flagged(None, Flag.NOT_READY)}
        result = self.bus.read(self.config.address, RANGE_STATUS, 12)
        self._write(INTERRUPT_CLEAR, 1)
        status, millimetres = result[0] >> 3 & 0xF, int.from_bytes(result[10:12], "big")
        if status != tuning.VALID:
            return {"distance": Flagged(None, tuning.RANGE_FLAGS.get(status, Flag.NOT_READY))}
        if millimetres >= tuning.NOTHING_MM:
            return {"distance": Flagged(None, Flag.OUT_OF_RANGE)}
        return {"distance": millimetres / 1000}

    def _ready(self) -> bool:
        return bool(self._read(INTERRUPT_STATUS) & 0x07)

    def _check_configured(self) -> None:
        found = self._read(SEQUENCE_CONFIG)
        if found != STEPS:
            raise ChipReset(
                f"VL53L0X at {self.config.address:#04x} lost its settings: sequence {found:#04x} instead of "
                f"{STEPS:#04x}; check its supply"
            )

    # -- registers ----------------------------------------------------------------------------------------

    def _read(self, register: int) -> int:
        return self.bus.read_u8(self.config.address, register)

    def _write(self, register: int, value: int) -> None:
        self.bus.write_u8(self.config.address, register, value)

    def _write_all(self, pairs: Iterable[tuple[int, ...]]) -> None:
        for register, value in pairs:
            self._write(register, value)

    def _await(self, what: str, condition: Callable[[], bool]) -> None:
        for _ in range(WAIT_TRIES):
            if condition():
                return
            self.sleep(WAIT_STEP_S)
        raise DriverError(
            f"VL53L0X at {self.config.address:#04x} did not {what} within {WAIT_TRIES * WAIT_STEP_S:g} s; "
            "check its supply"
        )
