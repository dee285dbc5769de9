"""Chips by themselves: register maps, quantities, power-on state."""

import pytest

from device_agent.testing import Quantity, RegisterChip, SerialChip


def test_one_line_register_map_answers_as_written():
    chip = RegisterChip({0x0F: b"\x01\x17", 0x00: b"\x0c\x80"})
    assert chip.transfer(b"\x0f", 2) == b"\x01\x17"
    assert chip.transfer(b"\x00", 2) == b"\x0c\x80"


def test_neighbouring_words_are_recognised():
    chip = RegisterChip({0x00: b"\x0c\x80", 0x01: b"\x02\x20", 0x0F: b"\x01\x17"})
    chip.transfer(b"\x01\x42\x24", 0)
    assert chip.transfer(b"\x01", 2) == b"\x42\x24"
    assert chip.transfer(b"\x00", 2) == b"\x0c\x80"
    assert chip.transfer(b"\x00", 4) == b"\x0c\x80\x0c\x80", "a word chip stays at its register"


def test_bytes_increment_and_the_pointer_stays():
    chip = RegisterChip({0x10: b"\x01\x02\x03"})
    assert chip.transfer(b"\x10", 2) == b"\x01\x02"
    assert chip.transfer(b"", 1) == b"\x03"
    chip.transfer(b"\xff\xaa\xbb", 0)
    assert (chip[0xFF], chip[0x00]) == (0xAA, 0xBB)


def test_sixteen_bit_register_addresses():
    chip = RegisterChip({0x1234: b"\x55"}, address_bytes=2)
    assert chip.transfer(b"\x12\x34", 2) == b"\x55\x00"


def test_read_only_registers_and_hooks():
    class Hooked(RegisterChip):
        def on_write(self, register: int, value: int) -> int:
            return value & 0x7F

        def on_read(self, register: int, value: int) -> int:
            self[register] = 0
            return value

    chip = Hooked({0x00: b"\x58"}, read_only=(0x00,))
    chip.transfer(b"\x00\xff\xff", 0)
    assert chip.transfer(b"\x00", 2) == b"\x58\x7f"
    assert chip.transfer(b"\x00", 2) == b"\x00\x00"


def test_quantities_stand_in_registers_and_outlive_a_reset():
    encode = lambda value: round(value * 128).to_bytes(2, "big", signed=True)  # noqa: E731
    chip = RegisterChip({0x01: b"\x02\x20"}, {"temperature": Quantity(0x00, encode, 20.0)}, register_bytes=2)
    chip.set("temperature", -1.5)
    chip.transfer(b"\x01\x00\x00", 0)
    chip.reset()
    assert chip.transfer(b"\x00", 2) == b"\xff\x40"
    assert chip.transfer(b"\x01", 2) == b"\x02\x20"
    with pytest.raises(ValueError, match="there are: temperature"):
        chip.set("humidity", 1)
    with pytest.raises(ValueError, match="is a number"):
        chip.set("temperature", "warm")


def test_serial_chip_speaks_by_the_clock_it_is_given():
    class Ticker(SerialChip):
        def report(self) -> bytes:
            return b"tick"

    chip = Ticker(every_s=1.0)
    assert chip.advance(10.0) == 11.0
    assert chip.outgoing() == b""
    assert chip.advance(12.5) == 13.0
    assert chip.outgoing() == b"ticktick"
    assert chip.outgoing() == b""
