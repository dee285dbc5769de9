"""An SSD1306 with a panel, by its data sheet: commands, memory, and the text that one could read on it."""

import random

from device_agent.testing.chips import I2cChip, Physical
from device_agent_drivers.ssd1306_font import COLUMNS, GLYPHS

MEMORY_COLUMNS, MEMORY_PAGES = 128, 8
# Commands with so many bytes behind them; all others have none
ARGUMENTS = {
    **dict.fromkeys((0x20, 0x81, 0x8D, 0xA8, 0xD3, 0xD5, 0xD9, 0xDA, 0xDB), 1),
    **dict.fromkeys((0x21, 0x22, 0xA3), 2),
    **dict.fromkeys((0x29, 0x2A), 5),
    **dict.fromkeys((0x26, 0x27), 6),
}
CELL = COLUMNS + 1
CHARACTERS = {glyph + b"\0": character for character, glyph in GLYPHS.items()}


class SimulatedSsd1306(I2cChip):
    """Outputs: on (bool), text (string; unreadable cells are "\ufffd")."""

    def __init__(
        self, address: int = 0x3C, width: int = 128, height: int = 64, first_column: int = 0
    ) -> None:
        super().__init__()
        self.address = address
        self._width, self._height, self._left = width, height, first_column
        self.reset()

    def reset(self) -> None:
        self.on = False
        self.shown_random = False
        """Whether the display was ever switched on with memory that nobody had written."""
        self.settings: dict[int, tuple[int, ...]] = {}
        self.memory = bytearray(random.Random(1).randbytes(MEMORY_COLUMNS * MEMORY_PAGES))
        self._written: set[int] = set()
        self._pending: list[int] = []
        self._columns, self._pages = (0, MEMORY_COLUMNS - 1), (0, MEMORY_PAGES - 1)
        self._column = self._page = 0

    def transfer(self, write: bytes, read_size: int) -> bytes:
        if write and write[0] == 0x00:
            for byte in write[1:]:
                self._command(byte)
        elif write and write[0] == 0x40:
            for byte in write[1:]:
                self._data(byte)
        return bytes((0x03 if self.on else 0x43,)) * read_size

    def _command(self, byte: int) -> None:
        self._pending.append(byte)
        code, *arguments = self._pending
        if len(arguments) < ARGUMENTS.get(code, 0):
            return
        self._pending = []
        self.settings[code] = tuple(arguments)
        if code in (0xAE, 0xAF):
            self.on = code == 0xAF
            self.shown_random |= self.on and not self._visible() <= self._written
        elif code == 0x21:
            self._columns, self._column = (arguments[0], arguments[1]), arguments[0]
        elif code == 0x22:
            self._pages, self._page = (arguments[0], arguments[1]), arguments[0]

    def _data(self, byte: int) -> None:
        """Horizontal addressing: to the right, then to the next page."""
        place = self._page * MEMORY_COLUMNS + self._column
        self.memory[place] = byte
        self._written.add(place)
        self._column += 1
        if self._column > self._columns[1]:
            self._column = self._columns[0]
            self._page = self._pages[0] if self._page >= self._pages[1] else self._page + 1

    def _visible(self) -> set[int]:
        return {
            page * MEMORY_COLUMNS + column
            for page in range(self._height // 8)
            for column in range(self._left, self._left + self._width)
        }

    def outputs(self) -> dict[str, Physical]:
        lit = self.on and self.settings.get(0x8D) == (0x14,)
        return {"on": lit, "text": self._text() if lit else ""}

    def _text(self) -> str:
        lines = []
        for page in range(self._height // 8):
            start = page * MEMORY_COLUMNS + self._left
            row = bytes(self.memory[start : start + self._width])
            cells = (row[i : i + CELL] for i in range(0, len(row) - CELL + 1, CELL))
            lines.append("".join(CHARACTERS.get(cell, "\ufffd") for cell in cells).rstrip())
        return "\n".join(lines).rstrip()
