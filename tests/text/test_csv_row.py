"""CSV that neither a spreadsheet, a terminal nor a reader of rows takes for something else."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.text.csv_row import csv_row


def read(row: str) -> list[str]:
    (cells,) = csv.reader(io.StringIO(row, newline=""))
    return cells


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1+2", "@SUM(A1)", "\t=1", "\r=1", "\n=1"])
def test_a_formula_is_a_text(text: str) -> None:
    assert read(csv_row([text, 1])) == [f"'{text}", "1"]


def test_numbers_and_what_is_missing_stay_as_they_are() -> None:
    assert csv_row([-1.5, None, 2, "a,b", 'say "c"']) == '-1.5,,2,"a,b","say ""c"""'


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_a_line_break_is_quoted(end: str) -> None:
    assert csv_row([f"a{end}b", 1]) == f'"a{end}b",1'


def test_what_steers_a_terminal_is_a_space() -> None:
    assert csv_row(["\x1b[2Ja\u202eb\ud800"]) == " [2Ja b "


@given(st.lists(st.text(), min_size=2))
def test_any_texts_are_one_row_of_as_many_cells(texts: list[str]) -> None:
    row = csv_row(texts)
    row.encode()
    assert len(read(row)) == len(texts)
