"""Text on a picture, in the best font that is installed."""

import unicodedata
from functools import cache
from typing import Any

from PIL import ImageDraw, ImageFont

# DejaVu is on most systems and has every unit. Pillow's own font, the last resort, has ASCII.
FONTS = ("DejaVuSans.ttf", "LiberationSans-Regular.ttf", "NotoSans-Regular.ttf", "FreeSans.ttf")
_PLAIN = {"µ": "u", "Ω": "Ohm", "²": "2", "³": "3"}


class TextDrawer:
    """Draws text on one picture."""

    def __init__(self, draw: ImageDraw.ImageDraw) -> None:
        self._draw = draw

    def text(self, at: tuple[float, float], text: str, size: int, colour: str, anchor: str) -> float:
        """Draw at a place, by Pillow's anchors; returns the width in pixels."""
        font, whole = _font(size)
        shown = text if whole else plain(text)
        self._draw.text(at, shown, fill=colour, font=font, anchor=anchor)
        return float(self._draw.textlength(shown, font=font))


@cache
def _font(size: int) -> tuple[Any, bool]:
    """A font, and whether it has more characters than ASCII."""
    for name in FONTS:
        try:
            return ImageFont.truetype(name, size), True
        except OSError:
            continue
    return ImageFont.load_default(size), False


def plain(text: str) -> str:
    """The text in ASCII and the degree sign, which is what Pillow's own font has."""
    spelled = "".join(_PLAIN.get(letter, letter) for letter in text)
    parts = (letter if letter == "°" else unicodedata.normalize("NFKD", letter) for letter in spelled)
    return "".join(letter for part in parts for letter in part if letter == "°" or letter.isascii())
