"""Solomon SSD1306: a small OLED display that shows text (data sheet rev 1.1).

Its memory is random at power-on, so it is filled before the display is switched on.
"""

from collections.abc import Mapping
from typing import Any, Literal

from device_agent.driver import Actuator, ActuatorConfig, ChipReset, I2cBus, Point, Sensor, Value
from device_agent.schema import Field
from device_agent_drivers.ssd1306_font import COLUMNS, GLYPHS, UNKNOWN

# Section 8.1.5: what follows a control byte is all commands or all data
COMMANDS = 0x00
DATA = 0x40

# Section 9, command table
ADDRESSING_MODE, HORIZONTAL = 0x20, 0x00
COLUMN_RANGE, PAGE_RANGE = 0x21, 0x22
START_LINE = 0x40
CONTRAST = 0x81
CHARGE_PUMP, PUMP_ON = 0x8D, 0x14
SEGMENT_REMAP = 0xA0
SHOW_MEMORY, NOT_INVERTED = 0xA4, 0xA6
MULTIPLEX = 0xA8
DISPLAY_OFF, DISPLAY_ON = 0xAE, 0xAF
SCAN_DIRECTION_UP, SCAN_DIRECTION_DOWN = 0xC0, 0xC8
OFFSET = 0xD3
CLOCK, PRECHARGE, COM_PINS, DESELECT_LEVEL = 0xD5, 0xD9, 0xDA, 0xDB
STOP_SCROLL = 0x2E

STATUS_OFF = 1 << 6
CELL = COLUMNS + 1
PAGE_ROWS = 8
MEMORY_COLUMNS = 128
CHUNK_SIZE = 31  # with the control byte no more than an SMBus block


class Ssd1306Config(ActuatorConfig):
    driver: Literal["ssd1306"] = "ssd1306"
    address: Literal[0x3C, 0x3D] = Field(0x3C, description="0x3C, or 0x3D with SA0 high.")
    width: Literal[64, 72, 96, 128] = Field(128, description="Columns of the panel.")
    height: Literal[16, 32, 40, 48, 64] = Field(64, description="Rows of the panel; a line of text takes 8.")
    first_column: int | None = Field(
        None, ge=0, le=64, description="Where the panel begins in the memory; by its width if absent."
    )
    upside_down: bool = Field(False, description="Turned by half a turn.")
    contrast: int = Field(127, ge=0, le=255, description="Brightness.")
    safe: str | dict[str, Value] = Field("", description="The text shown at the start and when in doubt.")


class Ssd1306(Sensor[Ssd1306Config, I2cBus], Actuator[Ssd1306Config, I2cBus]):
    """Text in lines, wrapped at the right edge; what is too much for the panel is not shown.

    Also asked now and then whether it is still on: after a brown-out it would stay dark unnoticed.
    """

    default_every_s = 30.0
    points = (Point("text", type="string", write=True, description="What is shown."),)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._text = ""
        self._tells = False

    @staticmethod
    def simulator(config: Ssd1306Config) -> Any:
        from device_agent_drivers.simulated.ssd1306 import SimulatedSsd1306

        return SimulatedSsd1306(config.address, config.width, config.height, first_column(config))

    def open(self) -> None:
        self._command(DISPLAY_OFF)
        self._show(str(type(self).safe_of(self.config)["text"]))
        # Some modules do not connect the chip's acknowledge: then a display that went off is not noticed
        self._tells = not self._status() & STATUS_OFF

    def read(self) -> dict[str, Value]:
        status = self._status()
        if self._tells and status & STATUS_OFF:
            raise ChipReset(f"SSD1306 at {self.config.address:#04x} is off: it was reset; check its supply")
        return {"text": self._text}

    def write(self, values: Mapping[str, Value]) -> dict[str, Value]:
        self._show(str(values["text"]))
        return {}

    def _show(self, text: str) -> None:
        """Settings, picture, on: also right for a chip that has just lost power."""
        config = self.config
        self._command(*settings(config))
        frame = render(text, config.width, config.height)
        for start in range(0, len(frame), CHUNK_SIZE):
            self.bus.write(config.address, DATA, frame[start : start + CHUNK_SIZE])
        self._command(DISPLAY_ON)
        self._text = text

    def _command(self, *commands: int) -> None:
        self.bus.write(self.config.address, COMMANDS, bytes(commands))

    def _status(self) -> int:
        return self.bus.read_u8(self.config.address, COMMANDS)


def first_column(config: Ssd1306Config) -> int:
    """Panels of 64 and 72 columns sit in the middle of the memory, others at its begin."""
    if config.first_column is not None:
        return config.first_column
    return (MEMORY_COLUMNS - config.width) // 2 if config.width in (64, 72) else 0


def settings(config: Ssd1306Config) -> tuple[int, ...]:
    """All that the panel needs, and where the picture goes; the values of the sheet's application notes."""
    # Flat panels alone (128x32, 96x16) are wired line by line.
    up = config.upside_down
    left = first_column(config)
    return (
        *(CLOCK, 0x80, MULTIPLEX, config.height - 1, OFFSET, 0, START_LINE, CHARGE_PUMP, PUMP_ON),
        *(SEGMENT_REMAP | (not up), SCAN_DIRECTION_UP if up else SCAN_DIRECTION_DOWN),
        *(COM_PINS, 0x02 if config.width > 2 * config.height else 0x12, CONTRAST, config.contrast),
        *(PRECHARGE, 0xF1, DESELECT_LEVEL, 0x40, SHOW_MEMORY, NOT_INVERTED, STOP_SCROLL),
        *(ADDRESSING_MODE, HORIZONTAL, COLUMN_RANGE, left, left + config.width - 1),
        *(PAGE_RANGE, 0, config.height // PAGE_ROWS - 1),
    )


def render(text: str, width: int, height: int) -> bytes:
    """The text as the panel's memory: pages of eight rows, in each a byte a column, lowest bit on top."""
    frame = bytearray()
    lines = wrapped(text, width // CELL)
    for number in range(height // PAGE_ROWS):
        line = lines[number] if number < len(lines) else ""
        row = b"".join(GLYPHS.get(character, UNKNOWN) + b"\0" for character in line)
        frame += row.ljust(width, b"\0")
    return bytes(frame)


def wrapped(text: str, columns: int) -> list[str]:
    """Lines of at most that many characters."""
    return [
        line[start : start + columns]
        for line in text.splitlines()
        for start in range(0, max(1, len(line)), columns)
    ]
