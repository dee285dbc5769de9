"""SSD1306: text on a panel, a memory that is never shown as it woke, a chip that went dark."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.driver import ChipReset
from device_agent.testing import check_driver
from device_agent_drivers.ssd1306 import Ssd1306, Ssd1306Config, render, wrapped
from device_agent_drivers.ssd1306_font import GLYPHS, UNKNOWN


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"height": 32, "safe": "Hello"},
        {"width": 64, "height": 48, "address": 0x3D, "safe": {"text": "-"}},
        {"width": 96, "height": 16},
        {"width": 72, "height": 40, "first_column": 30, "upside_down": True, "contrast": 0},
    ],
)
def test_contract(options):
    check_driver(Ssd1306, options)


def shown(bench, text: str, **options) -> str:
    it = bench(Ssd1306, "i2c1", **options)
    it.driver.open()
    it.driver.write({"text": text})
    return it.board.chip("it").outputs()["text"]


def test_text_is_shown(bench):
    assert shown(bench, "21.5 °C\n1013 hPa") == "21.5 °C\n1013 hPa"


def test_every_character_of_the_font(bench):
    text = "".join(map(chr, range(0x21, 0x7F))) + "°"
    assert shown(bench, text).replace("\n", "") == text
    assert len(set(GLYPHS.values())) == len(GLYPHS) == 96
    assert all(len(glyph) == 5 and max(glyph) < 0x80 for glyph in GLYPHS.values())
    assert UNKNOWN not in GLYPHS.values()


def test_glyphs_are_upright():
    """L has a stem at the left and a foot at the bottom; the lowest bit is the top row."""
    assert GLYPHS["L"] == bytes.fromhex("7f40404040")
    assert GLYPHS["^"] == bytes.fromhex("0402010204")


def test_long_lines_wrap_and_the_rest_is_cut_off(bench):
    assert wrapped("abcdefg\n\nh", 3) == ["abc", "def", "g", "", "h"]
    lines = shown(bench, "x" * 1000, height=32).split("\n")
    assert lines == ["x" * 21] * 4


def test_what_the_font_does_not_have_is_a_box():
    assert render("ß", 64, 16)[:6] == UNKNOWN + b"\0"


@given(st.text(max_size=300), st.sampled_from((64, 72, 96, 128)), st.sampled_from((16, 32, 40, 48, 64)))
def test_any_text_fills_exactly_the_panel(text, width, height):
    assert len(render(text, width, height)) == width * height // 8


def test_random_memory_is_never_shown(bench):
    it = bench(Ssd1306, "i2c1", width=64, height=48)
    it.driver.open()
    chip = it.board.chip("it")
    assert chip.outputs() == {"on": True, "text": ""}
    assert not chip.shown_random


def test_a_new_text_leaves_nothing_of_the_old(bench):
    it = bench(Ssd1306, "i2c1")
    it.driver.open()
    it.driver.write({"text": "a long text\nof two lines"})
    it.driver.write({"text": "short"})
    assert it.board.chip("it").outputs()["text"] == "short"
    assert it.driver.read() == {"text": "short"}


def test_going_dark_is_told_and_the_next_text_shows_again(bench):
    it = bench(Ssd1306, "i2c1", safe="idle")
    it.driver.open()
    assert it.board.chip("it").outputs()["text"] == "idle"
    it.board.reset("it")
    with pytest.raises(ChipReset, match="is off"):
        it.driver.read()
    it.driver.write({"text": "back"})
    assert it.board.chip("it").outputs() == {"on": True, "text": "back"}
    assert not it.board.chip("it").shown_random


def test_a_module_that_cannot_answer_is_not_taken_for_dark(bench):
    it = bench(Ssd1306, "i2c1")
    chip = it.board.chip("it")
    take = chip.transfer
    chip.transfer = lambda write, size: take(write, size) and b"\xff" * size
    it.driver.open()
    assert it.driver.read() == {"text": ""}


@pytest.mark.parametrize(
    ("width", "height", "columns", "multiplex", "pins"),
    [
        (128, 64, (0, 127), 63, 0x12),
        (128, 32, (0, 127), 31, 0x02),
        (96, 16, (0, 95), 15, 0x02),
        (72, 40, (28, 99), 39, 0x12),
        (64, 48, (32, 95), 47, 0x12),
        (64, 32, (32, 95), 31, 0x12),
    ],
)
def test_panels(bench, width, height, columns, multiplex, pins):
    it = bench(Ssd1306, "i2c1", width=width, height=height)
    it.driver.open()
    settings = it.board.chip("it").settings
    assert (settings[0x21], settings[0x22]) == (columns, (0, height // 8 - 1))
    assert (settings[0xA8], settings[0xDA]) == ((multiplex,), (pins,))
    assert {0xA1, 0xC8, 0xA4, 0xA6, 0x2E} <= settings.keys()


def test_transfers_fit_an_smbus_block(bench):
    it = bench(Ssd1306, "i2c1")
    sizes = []
    take = it.handle.transfer
    it.handle.transfer = lambda address, write, size=0: sizes.append(len(write)) or take(address, write, size)
    it.driver.open()
    assert max(sizes) <= 33


def test_options_are_bounded():
    for wrong in ({"address": 0x3E}, {"width": 100}, {"height": 24}, {"contrast": 256}, {"safe": 1}):
        with pytest.raises(ValueError):
            Ssd1306Config.model_validate(wrong)
