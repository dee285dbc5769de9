"""PMS5003: frames, starts within data, bad frames and what they swallowed, modes of the program before."""

import random

import pytest

from device_agent.testing import check_driver
from device_agent_drivers.pms5003 import NAMES, Pms5003, Pms5003Config

# 12, 18 and 20 ug/m3, as standard particles and as the air is alike; the sum of its bytes is 0x0390
EXAMPLE = bytes.fromhex("424d001c 000c 0012 0014 000c 0012 0014 08d3 0293 006c 0008 0004 0002 9700 0390")


def framed(words: list[int]) -> bytes:
    body = b"BM\0\x1c" + b"".join(word.to_bytes(2, "big") for word in [*words, 0x9700])
    return body + sum(body).to_bytes(2, "big")


def parser() -> Pms5003:
    return Pms5003(Pms5003Config(), None)  # type: ignore[arg-type]


def fed(data: bytes, driver: Pms5003 | None = None) -> list[dict]:
    return [dict(values) for values in (driver or parser()).feed(data)]


def test_contract():
    check_driver(Pms5003)


def test_a_frame():
    assert fed(EXAMPLE) == [
        {
            "pm1": 12, "pm2_5": 18, "pm10": 20, "pm1_cf1": 12, "pm2_5_cf1": 18, "pm10_cf1": 20,
            "count_0_3": 2259, "count_0_5": 659, "count_1": 108, "count_2_5": 8, "count_5": 4, "count_10": 2,
        }
    ]  # fmt: skip


def test_the_order_of_the_appendix():
    assert fed(framed(list(range(1, 13)))) == [dict(zip(NAMES, range(1, 13), strict=True))]
    assert {p.name for p in Pms5003.points} == set(NAMES)
    assert [p.name for p in Pms5003.points][:3] == ["pm1", "pm2_5", "pm10"]


def test_starts_within_the_data_and_at_its_end():
    words = [0x424D, 0x001C, 1, 2, 0x424D, 0x0004, 3, 4, 5, 6, 7, 0x4242]
    data = framed(words)
    for cut in range(len(data)):
        # Begun in the middle of a frame: at most that one is lost.
        assert fed(data[cut:] + data + data)[-2:] == [dict(zip(NAMES, words, strict=True))] * 2


def test_a_bad_frame_costs_no_other():
    good = framed(list(range(12)))
    for place in range(len(good)):
        bad = bytearray(good)
        bad[place] ^= 0x11
        assert fed(bytes(bad) + good) == fed(good), place
        assert fed(good[:place] + good) == fed(good), place  # torn: the true start lies within


def test_replies_to_commands_are_no_readings():
    reply = bytes.fromhex("424d0004e1010175")
    driver = parser()
    assert fed(reply + framed([1] * 12) + reply, driver) == [dict.fromkeys(NAMES, 1)]
    assert driver.frames_bad == 0


def test_noise_of_any_kind_ends_with_the_next_frame():
    chance = random.Random(3)
    for _ in range(200):
        noise = bytes(chance.choice(b"BM\x00\x1c\x04\xff") for _ in range(chance.randrange(60)))
        driver = parser()
        fed(noise + bytes(40), driver)
        assert fed(framed([7] * 12), driver) == [dict.fromkeys(NAMES, 7)]


def test_a_sensor_left_asleep_and_silent_is_woken(bench):
    it = bench(Pms5003, "meter")
    chip = it.board.chip("it")
    chip.active, chip.asleep = False, True
    it.driver.open()
    assert (chip.active, chip.asleep) == (True, False)
    assert it.board.sent("meter").hex(" ") == "42 4d e4 00 01 01 74 42 4d e1 00 01 01 71"
    source = it.driver.listen()
    it.board.set("it", pm2_5=55)
    it.clock.step(1.01)
    readings = [values for chunk in source.drain() for values in it.driver.feed(chunk)]
    assert [values["pm2_5"] for values in readings] == [55]
    assert it.driver.present(0.0)["pm2_5"] == 55
    source.close()


@pytest.mark.parametrize("kind", ["corrupt", "noise"])
def test_faults_of_the_line_give_no_wrong_number(bench, kind):
    it = bench(Pms5003, "meter")
    it.driver.open()
    source = it.driver.listen()
    source.drain()
    it.board.fault("meter", kind)
    it.clock.step(60)
    truth = {name: it.board.chip("it").quantities()[name] for name in NAMES}
    for chunk in source.drain():
        for values in it.driver.feed(chunk):
            assert values == truth
    assert it.driver.frames_bad > 0
    source.close()
