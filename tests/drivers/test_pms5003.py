"""PMS5003: frames, starts within data, bad frames and what they swallowed, modes of the program before."""

import random

import pytest

from device_agent.driver import WrongChip
from device_agent.testing import check_driver
from device_agent_drivers.pms5003 import COUNTS, IMPOSSIBLE_FRAMES, MASSES, Pms5003, Pms5003Config
from device_agent_drivers.pms5003 import NAMES as ALL_NAMES
from device_agent_drivers.simulated.pms5003 import SimulatedPms5003

NAMES = ALL_NAMES["pms5003"]
MODELS = list(ALL_NAMES)

# 12, 18 and 20 ug/m3, as standard particles and as the air is alike; the sum of its bytes is 0x0390
EXAMPLE = bytes.fromhex("424d001c 000c 0012 0014 000c 0012 0014 08d3 0293 006c 0008 0004 0002 9700 0390")


def framed(words: list[int]) -> bytes:
    body = b"BM\0\x1c" + b"".join(word.to_bytes(2, "big") for word in [*words, 0x9700])
    return body + sum(body).to_bytes(2, "big")


def parser() -> Pms5003:
    return Pms5003(Pms5003Config(), None)  # type: ignore[arg-type]


def fed(data: bytes, driver: Pms5003 | None = None) -> list[dict]:
    return [dict(values) for values in (driver or parser()).feed(data)]


@pytest.mark.parametrize("model", MODELS)
def test_contract(model):
    check_driver(Pms5003, {"model": model})


def test_a_frame():
    assert fed(EXAMPLE) == [
        {
            "pm1": 12, "pm2_5": 18, "pm10": 20, "pm1_cf1": 12, "pm2_5_cf1": 18, "pm10_cf1": 20,
            "count_0_3": 2259, "count_0_5": 659, "count_1": 108, "count_2_5": 8, "count_5": 4, "count_10": 2,
        }
    ]  # fmt: skip


def test_the_order_of_the_appendix():
    words = [1, 2, 3, 4, 5, 6, 18, 17, 16, 15, 14, 13]
    assert fed(framed(words)) == [dict(zip(NAMES, words, strict=True))]
    assert {p.name for p in parser().points} == set(NAMES)
    assert [p.name for p in parser().points][:3] == ["pm1", "pm2_5", "pm10"]


# One word for each mass and count, then what the model adds; 0x9700 is the version where the manual has one.
AIR = [12, 18, 20, 12, 18, 20, 2259, 659, 108, 8, 4, 2]
FRAMES = {
    "pms3003": ([*AIR[:6], 0, 0, 0x9700], {}),
    "pms5003s": ([*AIR, 31], {"formaldehyde": 31}),
    "pms5003st": (
        [*AIR, 31, 0xFFD8, 513, 0, 0x9700],
        {"formaldehyde": 31, "temperature": -4.0, "humidity": 51.3},
    ),
    "pms5003t": ([*AIR[:10], 224, 513, 0x9700], {"temperature": 22.4, "humidity": 51.3}),
    "pms7003": ([*AIR, 0x9700], {}),
}


def whole(words: list[int]) -> bytes:
    body = b"BM" + (2 * len(words) + 2).to_bytes(2, "big") + b"".join(w.to_bytes(2, "big") for w in words)
    return body + sum(body).to_bytes(2, "big")


@pytest.mark.parametrize("model", FRAMES)
def test_the_family(model):
    words, more = FRAMES[model]
    driver = Pms5003(Pms5003Config(model=model), None)
    (values,) = driver.feed(whole(words))
    known = [name for name in (*MASSES, *COUNTS) if name in ALL_NAMES[model]]
    assert values == {**dict(zip(known, AIR, strict=False)), **more}
    assert {point.name for point in driver.points} == set(values)


def test_a_pms5003t_is_not_taken_for_a_pms5003():
    """Its 22.4 degrees and 51.3 % lie where the other has counts of coarse particles."""
    driver = parser()
    frame = whole(FRAMES["pms5003t"][0])
    assert fed(frame * (IMPOSSIBLE_FRAMES - 1), driver) == []
    with pytest.raises(WrongChip, match=r"PMS5003T's temperature .* no PMS5003; set `model`"):
        fed(frame, driver)
    # One damaged frame whose sum is right by chance is dropped and counted.
    assert fed(EXAMPLE + frame + EXAMPLE, driver) == fed(EXAMPLE) * 2
    assert driver.notes() == {"bad_frames": IMPOSSIBLE_FRAMES + 1}


@pytest.mark.parametrize("model", ["pms3003", "pms5003st"])
def test_frames_of_another_length_are_another_models(model):
    driver = parser()
    with pytest.raises(WrongChip, match=f"frames of {len(whole(FRAMES[model][0]))} bytes instead of 32"):
        fed(whole(FRAMES[model][0]) * IMPOSSIBLE_FRAMES, driver)


def test_the_simulated_sensor_sends_what_its_manual_shows():
    for model, (words, _) in FRAMES.items():
        chip = SimulatedPms5003(model)
        assert len(chip.frame()) == len(whole(words))


def test_starts_within_the_data_and_at_its_end():
    words = [0x424D, 0x001C, 1, 2, 0x424D, 0x0004, 0x4D42, 0x424D, 0x4242, 0x001C, 4, 2]
    data = framed(words)
    for cut in range(len(data)):
        # Begun in the middle of a frame: at most that one is lost.
        assert fed(data[cut:] + data + data)[-2:] == [dict(zip(NAMES, words, strict=True))] * 2


def test_a_bad_frame_costs_no_other():
    good = framed([1, 2, 3, 4, 5, 6, 12, 11, 10, 9, 8, 7])
    for place in range(len(good)):
        bad = bytearray(good)
        bad[place] ^= 0x11
        assert fed(bytes(bad) + good) == fed(good), place
        assert fed(good[:place] + good) == fed(good), place  # torn: the true start lies within


def test_replies_to_commands_are_no_readings():
    reply = bytes.fromhex("424d0004e1010175")
    driver = parser()
    assert fed(reply + framed([1] * 12) + reply, driver) == [dict.fromkeys(NAMES, 1)]
    assert driver.notes() == {}


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
    assert it.driver.notes()["bad_frames"] > 0
    source.close()
