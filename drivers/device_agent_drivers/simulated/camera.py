"""A camera's program: writes JPEG pictures of a moving bar and their number to standard output.

python -m device_agent_drivers.simulated.camera WIDTH HEIGHT FRAMES_PER_S      (0: one picture)
"""

import os
import struct
import sys
import time

from device_agent_drivers.ssd1306_font import COLUMNS, GLYPHS, UNKNOWN

BLOCK = 8  # pixels: JPEG's unit, here all of one grey
GREYS = (40, 80, 120, 160)
BAR, INK = 200, 255
BAR_BLOCKS = 3
# Nine sizes of a difference, four bits each; of the other coefficients only "no more", one bit.
DC_CODES = bytes((0, 0, 0, 9)) + bytes(12) + bytes(range(9))
AC_CODES = bytes((1,)) + bytes(15) + bytes((0,))


def jpeg(width: int, height: int, greys: list[list[int]]) -> bytes:
    """A baseline JPEG (ITU-T T.81) of grey blocks, by rows: each is its mean value and nothing else."""
    quantized = b"\x00" + bytes((BLOCK,)) * 64  # so that the first coefficient counts in greys
    frame = struct.pack(">BHHB", 8, height, width, 1) + bytes((1, 0x11, 0))
    head = b"".join(
        bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body
        for marker, body in (
            (0xDB, quantized),
            (0xC0, frame),
            (0xC4, b"\x00" + DC_CODES),
            (0xC4, b"\x10" + AC_CODES),
            (0xDA, bytes((1, 1, 0x00, 0, 63, 0))),
        )
    )
    bits: list[str] = []
    before = 0
    for row in greys:
        for grey in row:
            change, before = grey - 128 - before, grey - 128
            size = abs(change).bit_length()
            value = change if change >= 0 else change + (1 << size) - 1
            bits.append(f"{size:04b}{value:0{size}b}0" if size else "00000")
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    data = int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\x00")
    return b"\xff\xd8" + head + data + b"\xff\xd9"


def picture(width: int, height: int, number: int) -> bytes:
    """Grey stripes, a bar that moves with the number, and the number itself."""
    columns, rows = -(-width // BLOCK), -(-height // BLOCK)
    stripes = [GREYS[column * len(GREYS) // columns] for column in range(columns)]
    for column in range(BAR_BLOCKS):
        stripes[(number + column) % columns] = BAR
    greys = [list(stripes) for _ in range(rows)]
    for place, character in enumerate(str(number)):
        for x, pixels in enumerate(GLYPHS.get(character, UNKNOWN)):
            column = 1 + place * (COLUMNS + 1) + x
            for y in range(min(BLOCK, rows - 1)):
                if pixels >> y & 1 and column < columns:
                    greys[1 + y][column] = INK
    return jpeg(width, height, greys)


def main() -> None:
    width, height, frames_per_s = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    number = 0
    while True:
        data = memoryview(picture(width, height, number))
        while data:
            data = data[os.write(1, data) :]
        number += 1
        if not frames_per_s:
            return
        time.sleep(1 / frames_per_s)


if __name__ == "__main__":
    try:
        main()
    except (BrokenPipeError, KeyboardInterrupt):
        sys.exit(1)
