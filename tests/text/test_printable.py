"""What others wrote, made printable and cut to what fits."""

import pytest

from device_agent.text.printable import printable, within


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (" a\x1b[31m\n\u202eb ", " a [31m  b "),
        ("half \ud800 a character\x85\u2028", "half   a character  "),
        ("x" * 1000, "x" * 299 + "…"),
        ("23.5 °C, 漢字", "23.5 °C, 漢字"),
        (7, "7"),
    ],
)
def test_what_others_wrote_is_one_printable_line(text: object, shown: str) -> None:
    assert printable(text) == shown
    assert printable(text).isprintable()


def test_a_text_is_cut_to_bytes_and_says_so() -> None:
    assert within("abc", 3) == "abc"
    cut = within("漢" * 100, 50)
    assert cut.endswith("漢…")
    assert 45 <= len(cut.encode()) <= 50
    assert within("\ud800", 50) == "\ud800"
