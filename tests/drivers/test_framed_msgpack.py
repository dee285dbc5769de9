"""framed-msgpack: frames, checksums and noise, points, and the Arduino sketch compiled for this machine."""

import os
import random
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest

from device_agent.driver import DriverError, Flag, Flagged
from device_agent.testing import check_driver
from device_agent_drivers.checksums import crc16_ibm_3740
from device_agent_drivers.framed_msgpack import FramedMsgpack, FramedMsgpackConfig, decoded, encoded
from device_agent_drivers.frames import FRAMINGS, Framing, cobs, slip, uncobs, unslip

POINTS = {
    "temperature": {"unit": "Cel"},
    "count": {"type": "integer"},
    "lamp": {"type": "boolean", "write": True, "safe": False},
    "dimmer": {"write": True, "minimum": 0, "maximum": 1, "safe": 0},
}
LIMIT_S = 30.0
SKETCH = Path(__file__).parents[2] / "drivers" / "arduino" / "framed_msgpack" / "framed_msgpack.ino"


class Wire:
    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def discard_input(self) -> None:
        pass

    def write(self, data: bytes) -> None:
        self.sent.append(data)


COBS = FRAMINGS["cobs"]
BOTH = pytest.mark.parametrize("framing", ["cobs", "slip"])


def controller(points: dict | None = None, **options) -> FramedMsgpack:
    config = FramedMsgpackConfig.model_validate({"points": points or POINTS, **options})
    return FramedMsgpack(config, Wire())  # type: ignore[arg-type]


def fed(driver: FramedMsgpack, data: bytes) -> list[dict]:
    return [dict(values) for values in driver.feed(data)]


@BOTH
def test_contract(framing):
    check_driver(FramedMsgpack, {"points": POINTS, "framing": framing})


def test_the_checksums_known_value():
    assert crc16_ibm_3740(b"123456789") == 0x29B1


@pytest.mark.parametrize(
    ("data", "frame"),
    [
        ("", "01"),
        ("00", "01 01"),
        ("00 00", "01 01 01"),
        ("11 22 00 33", "03 11 22 02 33"),
        ("11 22 33 44", "05 11 22 33 44"),
        ("11 00 00 00", "02 11 01 01 01"),
    ],
)
def test_stuffing_by_the_paper(data, frame):
    assert cobs(bytes.fromhex(data)) == bytes.fromhex(frame)
    assert uncobs(bytes.fromhex(frame)) == bytes.fromhex(data)


@pytest.mark.parametrize(
    ("data", "frame"),
    [("", ""), ("11 c0 22", "11 db dc 22"), ("db", "db dd"), ("db dc c0", "db dd dc db dc")],
)
def test_slip_by_its_rfc(data, frame):
    assert slip(bytes.fromhex(data)) == bytes.fromhex(frame)
    assert unslip(bytes.fromhex(frame)) == bytes.fromhex(data)


@pytest.mark.parametrize("frame", [b"\xdb", b"\xdb\x11", b"\x11\xdb\xdb\xdc"])
def test_what_is_no_slip_frame(frame):
    with pytest.raises(ValueError, match="no SLIP frame"):
        unslip(frame)


@pytest.mark.parametrize("size", [253, 254, 255, 256, 508, 509, 1000])
def test_long_runs(size):
    for data in (bytes(range(1, 256)) * 4, b"\x07" * 2000, b"\0" * 2000, os.urandom(2000)):
        frame = cobs(data[:size])
        assert 0 not in frame
        assert uncobs(frame) == data[:size]
        assert unslip(slip(data[:size])) == data[:size]
        assert b"\xc0" not in slip(data[:size])


@pytest.mark.parametrize("frame", [b"\x05\x11", b"\x02", b"\x01\x00", b"\xff"])
def test_what_is_no_frame(frame):
    with pytest.raises(ValueError, match="no COBS frame"):
        uncobs(frame)


@pytest.mark.parametrize(
    "payload",
    [b"", b"\xc0", b"\x93\x01\x02\x03", b"\x81\xa1a", b"\x81\xa1a\x01\x01", b"\x81\x91\x01\x01", b"\xc1"],
)
def test_what_is_no_map(payload):
    with pytest.raises(ValueError):
        decoded(COBS.framed(payload)[:-1], COBS)


def test_points():
    driver = controller()
    frame = encoded({"temperature": 21.5, "count": 3, "lamp": True, "other": [1]}, COBS)
    assert fed(driver, frame) == [{"temperature": 21.5, "count": 3, "lamp": True}]
    assert driver.present(0.0)["dimmer"] == Flagged(None, Flag.NOT_READY)
    assert fed(driver, encoded({"dimmer": 0.25, "temperature": -4}, COBS)) == [
        {"dimmer": 0.25, "temperature": -4.0}
    ]
    assert driver.present(0.0) == {"temperature": -4.0, "count": 3, "lamp": True, "dimmer": 0.25}
    nan = encoded({"temperature": float("nan"), "count": None, "lamp": "x", "dimmer": True}, COBS)
    assert set(fed(driver, nan)[0].values()) == {Flagged(None, Flag.NO_ANSWER)}


@pytest.mark.parametrize("kind", ["number", "integer", "boolean", "string"])
@pytest.mark.parametrize(
    "value",
    [b"\x01\x02", b"7", msgpack.Timestamp(1, 2), msgpack.ExtType(5, b"x"), [b"x"], {1: 2}, 1.5, 2**64 - 1],
)
def test_no_value_raises_and_none_is_guessed(kind, value):
    driver = controller({"it": {"type": kind}, "other": {}})
    payload = msgpack.packb({"it": value, 5: 1, "other": 3})
    (values,) = fed(driver, COBS.framed(payload))
    assert values["other"] == 3.0, "an integer key costs nothing but itself"
    if not isinstance(value, int | float) and not (kind == "string" and value == {1: 2}):
        assert values["it"] == Flagged(None, Flag.NO_ANSWER)
    if kind == "integer" and value == 1.5:
        assert values["it"] == Flagged(None, Flag.NO_ANSWER)


@pytest.mark.parametrize("kind", ["number", "integer", "boolean", "string"])
@pytest.mark.parametrize("where", [{}, {"other": 3}, {"it": 3}])
def test_deep_nesting_costs_its_own_value(kind, where):
    """As deep as msgpack allows is deeper than Python writes out before 3.13."""
    driver = controller({"it": {"type": kind, "where": where}, "other": {}}, max_frame_bytes=4096)
    payload = b"\x82\xa2it" + b"\x91" * 1000 + b"\x01" + b"\xa5other\x03"
    (values,) = fed(driver, COBS.framed(payload))
    assert values["other"] == 3.0
    text = "[" * 1000 + "1" + "]" * 1000
    may_be = (Flagged(None, Flag.NO_ANSWER), *[text] * (kind == "string"))
    assert values.get("it", may_be[0]) in may_be


@BOTH
def test_every_damaged_frame_is_noticed_and_costs_no_other(framing):
    how = FRAMINGS[framing]
    # Its checksum, and what has to be escaped, are among the bytes
    good = encoded({"temperature": 1.5, "count": 0xC0, "dimmer": 0xDB}, how)
    expected = fed(controller(framing=framing), good)
    assert expected[0]["count"] == 0xC0
    for place in range(len(good)):
        for bit in range(8):
            bad = bytearray(good)
            bad[place] ^= 1 << bit
            driver = controller(framing=framing)
            # A flipped end joins two frames: then the second is lost with the first.
            assert fed(driver, bytes(bad) + how.end + good) == expected, (place, bit)
            assert driver.frames_bad >= 1


def test_noise_never_raises_and_never_fills_the_memory():
    chance = random.Random(5)
    driver = controller(max_frame_bytes=64)
    for _ in range(200):
        fed(driver, chance.randbytes(chance.randrange(300)).replace(b"\0", b"\x01"))
        assert len(driver._rest) <= 64
    assert fed(driver, b"\0" + encoded({"count": 9}, COBS))[0]["count"] == 9


@BOTH
def test_writing_is_one_frame(framing):
    driver, how = controller(framing=framing), FRAMINGS[framing]
    assert driver.write({"lamp": True, "dimmer": 0.5}) == {}
    (sent,) = driver.bus.sent
    assert sent[:1] == sent[-1:] == how.end
    assert how.end not in sent[1:-1]
    assert decoded(sent[1:-1], how) == {"lamp": True, "dimmer": 0.5}


def test_a_frame_that_is_too_long_is_refused():
    with pytest.raises(DriverError, match="max_frame_bytes"):
        controller({"text": {"type": "string", "write": True, "safe": ""}}).write({"text": "x" * 600})


def test_scale_is_turned_round():
    driver = controller({"t": {"write": True, "safe": 20, "scale": 0.1, "offset": 5}})
    driver.write({"t": 20.3})
    assert decoded(driver.bus.sent[0][1:-1], COBS) == {"t": 153}
    assert fed(driver, encoded({"t": 153}, COBS))[0]["t"] == pytest.approx(20.3)


@BOTH
def test_the_controller_on_the_board(bench, framing):
    it = bench(FramedMsgpack, "meter", points=POINTS, framing=framing)
    it.driver.open()
    source = it.driver.listen()
    it.driver.write({"lamp": True})
    it.board.set("it", temperature=-3.25)
    readings = [values for chunk in source.drain() for values in it.driver.feed(chunk)]
    assert readings[-1] == {"temperature": -3.25, "count": 0, "lamp": True, "dimmer": 0}
    it.board.fault("meter", "corrupt")
    it.clock.step(20)
    assert [values for chunk in source.drain() for values in it.driver.feed(chunk)] == []
    source.close()


# --- the sketch ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["cobs", "slip"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed (apt-get install g++)")
    built = tmp_path_factory.mktemp("sketch") / "controller"
    headers = Path(__file__).parent / "arduino_on_host"
    strict = ["-Wall", "-Wextra", "-Werror", "-fsanitize=undefined", "-fno-sanitize-recover=all"]
    words = [
        "g++",
        "-x",
        "c++",
        *strict,
        f"-I{headers}",
        f"-DSLIP={request.param == 'slip':d}",
        "-include",
        "Arduino.h",
        str(SKETCH),
        "-o",
        str(built),
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return built, request.param


class Sketch:
    """The sketch as a process, with a driver at its other end."""

    def __init__(self, program: Path, framing: str) -> None:
        self.framing: Framing = FRAMINGS[framing]
        self.process = subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        )
        points = {
            "analog": {"unit": "V"},
            "uptime": {"unit": "s", "type": "integer"},
            "lamp": {"type": "boolean", "write": True, "safe": False},
            "dimmer": {"write": True, "minimum": 0, "maximum": 1, "safe": 0},
        }
        self.driver = controller(points, framing=framing)
        self.driver.bus.write = self.process.stdin.write

    def until(self, **wanted) -> dict:
        """The first reading with these values."""
        deadline_s = time.monotonic() + LIMIT_S
        while True:
            left_s = deadline_s - time.monotonic()
            assert left_s > 0, f"the sketch never said {wanted}"
            if not select.select([self.process.stdout], [], [], left_s)[0]:
                continue
            chunk = os.read(self.process.stdout.fileno(), 4096)
            assert chunk, "the sketch has ended"
            for values in self.driver.feed(chunk):
                if all(values.get(name) == value for name, value in wanted.items()):
                    return values

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(LIMIT_S)
        self.process.stdout.close()


@pytest.fixture
def sketch(program: tuple[Path, str]) -> Iterator[Sketch]:
    running = Sketch(*program)
    yield running
    running.close()
    assert running.process.returncode == 0


def test_the_sketch_says_its_points(sketch):
    assert sketch.until(lamp=False) == {
        "analog": 2.5,
        "uptime": pytest.approx(0, abs=1e9),
        "lamp": False,
        "dimmer": 0.0,
    }
    assert sketch.driver.frames_bad == 0


@pytest.mark.parametrize("dimmer", [0, 1, 0.5, 0.1, 1e-5, 0.7071067811865476])
def test_the_sketch_obeys(sketch, dimmer):
    sketch.driver.write({"lamp": True, "dimmer": dimmer})
    assert sketch.until(lamp=True)["dimmer"] == pytest.approx(dimmer, rel=1e-6)
    sketch.driver.safe()
    assert sketch.until(lamp=False)["dimmer"] == 0


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.25, 0.25),
        (1, 1),
        (-1, 0),
        (200, 1),
        (-200, 0),
        (70_000, 1),
        (-70_000, 0),
        (1 << 40, 1),
        (-(1 << 40), 0),
    ],
)
@pytest.mark.parametrize("single", [False, True])
def test_the_sketch_knows_every_number_of_msgpack(sketch, value, expected, single):
    payload = msgpack.packb({"dimmer": value, "lamp": True}, use_single_float=single)
    sketch.driver.bus.write(sketch.framing.framed(payload))
    assert sketch.until(lamp=True)["dimmer"] == expected


def test_the_sketch_survives_noise(sketch):
    chance = random.Random(7)
    good = encoded({"lamp": False}, sketch.framing)
    for place in range(len(good) - 1):
        bad = bytearray(encoded({"lamp": True}, sketch.framing))
        bad[place] ^= 1 << chance.randrange(8)
        sketch.driver.bus.write(bytes(bad) + sketch.framing.end)
    sketch.driver.bus.write(bytes(chance.randrange(1, 256) for _ in range(3000)) + sketch.framing.end)
    for payload in (
        b"\x81",
        b"\x8f\xa4lamp",
        b"\x81\xbflamp\xc3",
        b"\x81\xa4lamp\xcb\x01",
        b"\x80",
        b"\xa4lamp",
    ):
        sketch.driver.bus.write(sketch.framing.framed(payload))
    sketch.driver.write({"dimmer": 1})
    assert sketch.until(dimmer=1.0)["lamp"] is False
