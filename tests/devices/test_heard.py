"""What bytes that nobody understands tell of the line they come by."""

import random

import pytest

from device_agent.devices.heard import PATIENCE_S, SAMPLE_MIN, Heard, looks_like

TEXT = b"/ISk5MT382-1000\r\n1-0:1.8.0(000123.45*kWh)\r\n1-0:32.7.0(231.2*V)\r\n!\r\n" * 4


def on_the_line(data: bytes, frame: str) -> list[int]:
    """The levels, bit by bit, as a far end sends bytes in this frame, with a bit of rest between two."""
    size, parity = int(frame[0]), frame[1]
    levels: list[int] = []
    for byte in data:
        bits = [byte >> place & 1 for place in range(size)]
        check = {"N": [], "E": [sum(bits) % 2], "O": [1 - sum(bits) % 2]}[parity]
        levels += [0, *bits, *check, 1, 1]
    return levels


def received(levels: list[int], factor: float = 1.0) -> bytes:
    """What a receiver of 8N1 makes of it that takes `factor` bits in the time of one; as the kernel does, a
    byte without its stop bit is read as 0."""
    out = bytearray()

    def level(place: float) -> int:
        at = int(place / factor)
        return levels[at] if at < len(levels) else 1

    place, end = 0.0, len(levels) * factor
    while place < end:
        if level(place):
            place += 0.25
            continue
        bits = [level(place + 0.5 + number) for number in range(1, 10)]
        out.append(sum(bit << at for at, bit in enumerate(bits[:8])) if bits[8] else 0)
        place += 9.5
        while not bits[8] and place < end and not level(place):
            place += 0.25  # it waits for the line to rise
    return bytes(out)


def test_the_receiver_of_this_test_is_one():
    assert received(on_the_line(TEXT, "8N1")) == TEXT


@pytest.mark.parametrize("frame", ["7E1", "7O1", "8E1", "8O1"])
def test_another_parity(frame):
    assert looks_like(received(on_the_line(TEXT, frame)), 9600, "8N1") == f"looks like {frame}"


@pytest.mark.parametrize("factor", [2, 3, 4, 6, 8])
def test_a_lower_speed(factor):
    told = looks_like(received(on_the_line(TEXT, "8N1"), factor), 9600, "8N1")
    assert told == f"looks like {9600 // factor} baud"


@pytest.mark.parametrize("factor", [1 / 2, 1 / 4, 9.6 / 14.4])
def test_a_higher_speed_is_no_text(factor):
    told = looks_like(received(on_the_line(TEXT, "8N1"), factor), 9600, "8N1")
    assert told.startswith(("looks like another speed, parity or protocol, such as ", "only zeros: a far"))


def test_what_else_it_may_be():
    assert looks_like(bytes(99), 9600, "8N1").startswith("only zeros")
    assert looks_like(TEXT, 9600, "8N1") == "looks like text, such as '/ISk5MT382-1000'"
    assert "without line ends" in looks_like(b"T=21.5;" * 9, 9600, "8N1")
    seven_bits = bytes(byte if byte.bit_count() % 2 == 0 else 0 for byte in TEXT)
    assert looks_like(seven_bits, 9600, "7E1") == "looks like 8N1"
    noise = random.Random(5).randbytes(512)
    assert looks_like(noise, 9600, "8N1").startswith("looks like another speed")


def test_it_is_said_after_a_while_and_until_something_is_understood():
    now = [0.0]
    heard = Heard(lambda: now[0])
    heard.take(b"\x81" * (SAMPLE_MIN - 1), 0)
    now[0] = PATIENCE_S
    assert heard.trouble(9600, "8N1") == "", "too little to say anything"
    heard.take(b"\x81" * (150 * 12 - SAMPLE_MIN + 1), 0)
    assert heard.trouble(9600, "8N1").startswith("150 bytes/s, nothing understood: looks like")
    heard.take(b"W 5\n", 1)
    now[0] += PATIENCE_S
    assert heard.trouble(9600, "8N1") == ""
