"""Rows of CSV with text that others wrote."""

import csv
import io
from collections.abc import Iterable

# A spreadsheet takes a text that begins with one of these for a formula, or strips it and looks again.
FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r", "\n")


def csv_row(cells: Iterable[object]) -> str:
    """One row without its line end, by RFC 4180: line breaks within a text are quoted.

    A text that a spreadsheet would take for a formula begins with an apostrophe; what steers a terminal is a
    space. Numbers stay as they are, None is empty.
    """
    out = io.StringIO()
    # The writer quotes what its own line end is made of.
    csv.writer(out, lineterminator="\r\n").writerow(
        _defused(cell) if isinstance(cell, str) else cell for cell in cells
    )
    return out.getvalue()[:-2]


def _defused(text: str) -> str:
    safe = "".join(sign if sign.isprintable() or sign in "\t\r\n" else " " for sign in text)
    return f"'{safe}" if safe.startswith(FORMULA_SIGNS) else safe
