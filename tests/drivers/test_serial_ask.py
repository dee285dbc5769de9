"""Instruments that speak only when they are asked, on a pseudo-terminal."""

import contextlib
import functools
import operator
import random
from collections.abc import Callable, Iterator

import pytest
from pydantic import ValidationError

from device_agent.driver import Flag, Flagged, NoAnswer
from device_agent.errors import BusTimeout
from device_agent.testing import check_driver
from device_agent_drivers.serial_ask import SerialAsk, SerialAskConfig
from support.scripted_line import SlowFarEnd
from support.serial_peer import SerialPeer

SILENT_S = 0.2
NO_ANSWER = Flagged(None, Flag.NO_ANSWER)


@pytest.fixture
def asking() -> Iterator[Callable[..., tuple[SerialAsk, SerialPeer]]]:
    """A driver with these options, at a far end with these answers."""
    closing: list[Callable[[], None]] = []

    def make(answers: dict[bytes, bytes], baud: int = 9600, **options) -> tuple[SerialAsk, SerialPeer]:
        peer = SerialPeer(answers)
        port = peer.port(baud=baud)
        port.open()
        closing.extend((port.close, peer.close))
        config = SerialAskConfig.model_validate({"bus": "line", **options})
        driver = SerialAsk(config, port)  # type: ignore[arg-type]
        driver.open()
        return driver, peer

    yield make
    for close in closing:
        close()


BALANCE = {
    "ask": "SI\r\n",
    "pattern": r"^S [SD] +(?P<weight>[-+]? *[0-9.]+ g)|^S (?P<state>[-+])$",
    "points": {"weight": {"unit": "g"}, "state": {"type": "string"}},
    "answer_s": SILENT_S,
}


def test_a_balance(asking):
    """MT-SICS: S is stable, D is not yet, + and - are overload and underload."""
    driver, peer = asking({b"SI\r\n": b"S S     -12.34 g\r\n"}, **BALANCE)
    assert driver.read() == {"weight": -12.34, "state": NO_ANSWER}
    peer.answers[b"SI\r\n"] = b"S +\r\n"
    assert driver.read() == {"weight": NO_ANSWER, "state": "+"}
    peer.answers[b"SI\r\n"] = b"ES\r\n"
    with pytest.raises(NoAnswer, match=r"'SI.* was not answered as it should be: only b'ES"):
        driver.read()
    peer.answers.clear()
    with pytest.raises(NoAnswer, match="nothing came"):
        driver.read()


def test_questions_one_after_the_other(asking):
    """SCPI: one value an answer."""
    driver, peer = asking(
        {b"MEAS:VOLT?\n": b"+1.20000000E+01\n", b"MEAS:CURR?\n": b"9.90000000E+37\n"},
        ask=[
            {"send": "*CLS\n"},
            {"send": "MEAS:VOLT?\n", "answer": "^(?P<voltage>.+)$"},
            {"send": "MEAS:CURR?\n", "answer": "^(?P<current>.+)$"},
        ],
        points={"voltage": {"unit": "V"}, "current": {"unit": "A"}},
    )
    assert driver.read() == {"voltage": 12.0, "current": Flagged(None, Flag.OVERFLOW)}
    assert peer.heard == b"*CLS\nMEAS:VOLT?\nMEAS:CURR?\n"


class LateInstrument(SlowFarEnd):
    """A multimeter of 12 V and 3 A that works off all that it was asked."""

    def __init__(self, takes_s: float) -> None:
        super().__init__(takes_s, lambda asked: b"12.0\n" if b"VOLT" in asked else b"3.0\n")


def multimeter(line: SlowFarEnd, monkeypatch: pytest.MonkeyPatch, **options) -> SerialAsk:
    for module in ("serial_ask", "far_end"):
        monkeypatch.setattr(f"device_agent_drivers.{module}.monotonic", lambda: line.now_s)
    table = {
        "ask": [
            {"send": "MEAS:VOLT?\n", "answer": "^(?P<voltage>[0-9.]+)$"},
            {"send": "MEAS:CURR?\n", "answer": "^(?P<current>[0-9.]+)$"},
        ],
        "points": {"voltage": {"unit": "V"}, "current": {"unit": "A"}},
        "answer_s": 0.5,
        **options,
    }
    device = SerialAsk(SerialAskConfig.model_validate({"bus": "line", **table}), line)  # type: ignore[arg-type]
    device.open()
    return device


@pytest.mark.parametrize("takes_s", [0.1, 0.45, 0.51, 0.6, 0.8, 1.1, 1.6, 2.4])
def test_a_late_answer_is_never_another_questions(takes_s, monkeypatch):
    line = LateInstrument(takes_s)
    device = multimeter(line, monkeypatch)
    for _ in range(60):
        with contextlib.suppress(NoAnswer):
            assert device.read() == {"voltage": 12.0, "current": 3.0}
        line.now_s += 0.1
    assert (device.notes().get("late_answers", 0) > 0) is (takes_s > 0.5)


def test_one_that_is_slow_at_times_gives_no_wrong_value(monkeypatch):
    line = LateInstrument(0.1)
    device = multimeter(line, monkeypatch)
    chance, good = random.Random(4), 0
    for _ in range(300):
        line.takes_s = chance.choice([0.1, 0.1, 0.1, 0.7, 1.2])
        with contextlib.suppress(NoAnswer):
            assert device.read() == {"voltage": 12.0, "current": 3.0}
            good += 1
    assert good > 50


def test_an_instrument_that_never_stops_is_given_up(monkeypatch):
    line = LateInstrument(0.1)
    device = multimeter(line, monkeypatch)
    line.due = [(0.1, b"12.0\n"), *((0.1 * n, b"---\n") for n in range(2, 4000))]
    line.write = lambda data: None  # type: ignore[method-assign]
    with pytest.raises(NoAnswer, match="CURR"):
        device.read()
    with pytest.raises(NoAnswer, match="goes on talking"):
        device.read()


def test_a_late_confirmation_is_no_other_commands(monkeypatch):
    """`OK` does not say of what."""
    line = LateInstrument(0.1)
    line.answer = lambda sent: b"OK\n"
    device = multimeter(
        line,
        monkeypatch,
        command="VOLT {voltage}\n",
        confirm="^OK$",
        points={"voltage": {"write": True, "safe": 0}, "current": {}},
    )
    line.takes_s = 0.7
    with pytest.raises(BusTimeout):
        device.write({"voltage": 5})
    with pytest.raises(BusTimeout):
        device.write({"voltage": 7})
    line.now_s, line.due, line.takes_s = line.now_s + 10, [], 0.1
    assert device.write({"voltage": 5}) == {}


def test_what_was_sent_and_comes_back_is_no_answer(asking):
    """Optical heads and half-duplex adapters repeat it, and so do instruments with their echo on."""
    driver, peer = asking(
        {b"MEAS:VOLT?\n": b"MEAS:VOLT?\n12.0\n", b"MEAS:CURR?\n": b"MEAS:CURR?\n3.0\n"},
        ask=[
            {"send": "MEAS:VOLT?\n", "answer": "^(?P<voltage>.+)$"},
            {"send": "MEAS:CURR?\n", "answer": "^(?P<current>.+)$"},
        ],
        points={"voltage": {"unit": "V"}, "current": {"unit": "A"}},
        answer_s=SILENT_S,
    )
    assert driver.read() == {"voltage": 12.0, "current": 3.0}
    peer.answers[b"MEAS:VOLT?\n"] = b"M1.0\n"  # begins as the question does
    assert driver.read() == {"voltage": NO_ANSWER, "current": 3.0}


def test_nothing_is_sent_while_the_far_end_starts(monkeypatch):
    line = LateInstrument(0.1)
    points = {"voltage": {"write": True, "safe": 0}, "current": {}}
    multimeter(line, monkeypatch, command="VOLT {voltage}\n", points=points, open_delay_s=2)
    assert line.sent == [b"VOLT 0\n"]
    assert line.now_s >= 2


METER = b"F.F(00)\r\n1.8.0(000123.456*kWh)\r\n!\r\n\x03"


def test_a_meter_that_wants_another_speed(asking):
    """IEC 62056-21, mode C: asked at 300 baud, answers at 9600, with a checksum."""
    bcc = 0
    for byte in METER:
        bcc ^= byte
    driver, _ = asking(
        {b"/?!\r\n": b"/ISk5MT174-0001\r\n", b"\x06050\r\n": b"\x02" + METER + bytes((bcc,))},
        baud=300,
        ask=[
            {"send": "/?!\r\n", "answer": "^/...5"},
            {"send": "\x06050\r\n", "baud": 9600},
        ],
        checksum="iec-62056-21",
        pattern=r"^1\.8\.0\((?P<energy>[0-9.]+)\*kWh\)",
        points={"energy": {"unit": "kW.h"}},
    )
    for _ in range(2):
        assert driver.read() == {"energy": 123.456}
        assert driver.bus.baud == 9600
    driver.bus.set_baud(9600)
    steps = driver.read_steps()
    next(steps, None)
    assert driver.bus.baud == 300, "the next reading begins at the first speed"
    steps.close()


class Meter(SlowFarEnd):
    """It hears at 300 baud, and answers an acknowledgement at 9600; at another speed other bytes are read."""

    def __init__(self) -> None:
        bcc = functools.reduce(operator.xor, METER)
        said = {b"/?!\r\n": b"/ISk5MT174-0001\r\n", b"\x06050\r\n": b"\x02" + METER + bytes((bcc,))}
        super().__init__(0.1, lambda asked: said.get(asked, b""))
        self.baud = self.its_baud = 300

    def write(self, data: bytes) -> None:
        super().write(data if self.baud == 300 else b"\0")
        self.its_baud = 9600 if data.startswith(b"\x06") else 300

    def read(self, size: int, timeout_s: float) -> bytes:
        data = super().read(size, timeout_s)
        return data if self.baud == self.its_baud else b"\xf8" * len(data)

    def set_baud(self, baud: int) -> None:
        self.baud = baud


def test_an_answer_comes_at_the_speed_of_its_question(monkeypatch):
    line = Meter()
    driver = multimeter(
        line,
        monkeypatch,
        ask=[{"send": "/?!\r\n", "answer": "^/...5"}, {"send": "\x06050\r\n", "baud": 9600}],
        checksum="iec-62056-21",
        pattern=r"^1\.8\.0\((?P<voltage>[0-9.]+)\*kWh\)",
        command="SET {current}\r\n",
        points={"voltage": {"unit": "kW.h"}, "current": {"write": True, "safe": 0}},
    )
    for _ in range(2):
        assert driver.read()["voltage"] == 123.456
    assert line.baud == 9600
    driver.write({"current": 1})
    assert line.baud == 300, "nobody hears a command at the speed of an answer"


MHZ19 = {
    "ask": [{"send_hex": "FF 01 86 00 00 00 00 00 79"}],
    "frame": {"start": "FF 86", "length": 9, "checksum": "negated-sum8", "checksum_from": 1},
    "points": {"co2": {"at": 2, "code": "u16", "unit": "[ppm]", "type": "integer"}},
    "answer_s": SILENT_S,
}


def test_a_gas_sensor_without_code(asking):
    """MH-Z19: the frame of its data sheet, behind noise and a damaged one."""
    good, hurt = bytes.fromhex("FF860260470000 00D1"), bytes.fromhex("FF860261470000 00D1")
    driver, _ = asking({bytes.fromhex("FF0186000000000079"): b"\x00\xff" + hurt + good}, **MHZ19)
    assert driver.read() == {"co2": 608}
    assert driver.notes() == {"bad_frames": 1}


SUPPLY = {
    "ask": "V?\n",
    "pattern": "^V=(?P<voltage>[0-9.]+)$",
    "command": "SET {setpoint:.1f}\n",
    "confirm": "^SET=(?P<setpoint>[0-9.]+)$",
    "points": {"voltage": {}, "setpoint": {"write": True, "safe": 0}},
    "answer_s": SILENT_S,
}


def test_a_command_and_what_confirms_it(asking):
    answers = {b"SET 0.0\n": b"SET=0.0\n", b"SET 5.0\n": b"SET=5.0\n", b"V?\n": b"V=4.99\n"}
    driver, peer = asking(answers, **SUPPLY)
    assert driver.write({"setpoint": 5}) == {"setpoint": 5.0}
    assert driver.read() == {"voltage": 4.99, "setpoint": 5}
    del peer.answers[b"SET 0.0\n"]
    with pytest.raises(BusTimeout, match="nothing like `confirm` came: it may have happened"):
        driver.safe()
    assert SerialAsk.confirms(driver.config)
    assert SerialAsk.safe_of(SerialAsk.to_read(driver.config)) == {}


def test_its_contract():
    for options in (
        MHZ19,
        SUPPLY,
        BALANCE | {"pattern": "^S S +(?P<weight>[0-9.]+)", "points": {"weight": {}}},
    ):
        check_driver(SerialAsk, config={**options, "answer_s": 0.05})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ask": ""}, "`ask` is empty"),
        ({"ask": [{"send": "a", "send_hex": "00"}]}, "either `send` or `send_hex`"),
        ({"ask": [{"send": "a", "answer": "("}]}, "no regular expression"),
        ({"ask": [{"send": "a", "answer": "(?P<mass>.)"}]}, "names mass"),
        ({"pattern": None}, "nothing says how an answer is read"),
        ({"confirm": "(?P<weight>.)"}, "not a writable point"),
        ({"frame": {"start": "FF"}}, "either `length` or `length_at`"),
    ],
)
def test_mistakes_in_the_configuration_are_named(change, message):
    with pytest.raises(ValidationError, match=message):
        SerialAskConfig.model_validate({**BALANCE, **change})
