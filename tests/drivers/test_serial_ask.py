"""Instruments that speak only when they are asked, on a pseudo-terminal."""

from collections.abc import Callable, Iterator

import pytest
from pydantic import ValidationError

from device_agent.driver import Flag, Flagged, NoAnswer
from device_agent.errors import BusTimeout
from device_agent.testing import check_driver
from device_agent_drivers.serial_ask import SerialAsk, SerialAskConfig
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
