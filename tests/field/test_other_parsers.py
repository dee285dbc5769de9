"""What others make of the same bytes: parsers that share no code with ours."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.driver import Flagged
from device_agent_drivers import frames
from device_agent_drivers.checksums import crc16_arc
from device_agent_drivers.nmea_gps import KNOT_M_S, MEASURED, NOT_MEASURED, NmeaGps, NmeaGpsConfig
from device_agent_drivers.serial_lines import SerialLines, SerialLinesConfig
from device_agent_drivers.simulated.serial_lines import SEALS

CASES = Path(__file__).with_name("cases")
DEV = "pip install -e '.[dev]'"


def wire(path: Path) -> str:
    return str(tomllib.loads(path.read_text(encoding="utf-8"))["wire"])


# --- P1 of electricity meters ----------------------------------------------------------------------------

# By the attribute that the other parser gives it.
METER = {
    "ELECTRICITY_USED_TARIFF_1": r"^1-0:1\.8\.1\((?P<x>[0-9.]+)\*kWh",
    "ELECTRICITY_USED_TARIFF_2": r"^1-0:1\.8\.2\((?P<x>[0-9.]+)\*kWh",
    "CURRENT_ELECTRICITY_USAGE": r"^1-0:1\.7\.0\((?P<x>[0-9.]+)\*kW\)",
    "INSTANTANEOUS_VOLTAGE_L1": r"^1-0:32\.7\.0\((?P<x>[0-9.]+)\*V",
}
TELEGRAM = (
    "/ISK5\\2M550T-1013\r\n\r\n1-3:0.2.8(50)\r\n0-0:1.0.0(260127110431W)\r\n1-0:1.8.1({:010.3f}*kWh)\r\n"
    "1-0:1.8.2({:010.3f}*kWh)\r\n1-0:1.7.0({:06.3f}*kW)\r\n1-0:32.7.0({:05.1f}*V)\r\n!"
)


def p1() -> SerialLines:
    points = {name.lower(): {} for name in METER}
    pattern = "|".join(one.replace("<x>", f"<{name.lower()}>") for name, one in METER.items())
    options = {"checksum": "p1", "pattern": pattern, "points": points}
    return SerialLines(SerialLinesConfig.model_validate(options), None)  # type: ignore[arg-type]


def ours(telegram: str) -> dict[str, Any]:
    readings = [dict(values) for values in p1().feed(telegram.encode())]
    return readings[0] if readings else {}


def theirs(telegram: str) -> dict[str, Any]:
    from dsmr_parser import telegram_specifications
    from dsmr_parser.exceptions import InvalidChecksumError, ParseError
    from dsmr_parser.parsers import TelegramParser

    try:
        found = TelegramParser(telegram_specifications.V5).parse(telegram)
    except (InvalidChecksumError, ParseError):
        return {}
    return {name.lower(): float(getattr(found, name).value) for name in METER if hasattr(found, name)}


ENERGY = st.decimals(0, 999_999, places=3)


@given(
    ENERGY,
    ENERGY,
    st.decimals(0, 99, places=3),
    st.decimals(0, 999, places=1),
    st.integers(0, 200),
    st.integers(0, 9),
)
def test_a_p1_telegram_and_one_with_a_digit_changed(
    first: Any, second: Any, power: Any, voltage: Any, at: int, digit: int
) -> None:
    pytest.importorskip("dsmr_parser", reason=DEV)
    text = TELEGRAM.format(first, second, power, voltage)
    crc = f"{crc16_arc(text.encode()):04X}\r\n"
    assert ours(text + crc) == theirs(text + crc)
    assert len(ours(text + crc)) == len(METER)
    place = at % len(text)
    if text[place].isdigit() and text[place] != str(digit):
        damaged = f"{text[:place]}{digit}{text[place + 1 :]}{crc}"
        assert ours(damaged) == theirs(damaged) == {}


@pytest.mark.parametrize("name", ["p1_lost_digits", "p1_beginning_missed"])
def test_the_telegrams_of_the_library(name: str) -> None:
    pytest.importorskip("dsmr_parser", reason=DEV)
    telegrams = [f"/{part}" for part in wire(CASES / f"{name}.toml").split("/")[1:]]
    assert [ours(one) for one in telegrams] == [theirs(one) for one in telegrams]
    assert any(map(ours, telegrams))


# --- NMEA 0183 -------------------------------------------------------------------------------------------


def sentences() -> Iterator[str]:
    for path in sorted(CASES.glob("gps*.toml")):
        if path.stem != "gps_other_digits":  # which the other parser takes for digits
            yield from (f"${part}" for part in wire(path).split("$")[1:])


def test_the_sentences_of_the_library() -> None:
    pynmea2 = pytest.importorskip("pynmea2", reason=DEV)
    compared = 0
    for sentence in sentences():
        try:
            their = pynmea2.parse(sentence.split("\r")[0], check=True)
        except pynmea2.ParseError:
            their = None
        kind = getattr(their, "sentence_type", "")
        if kind not in ("GGA", "RMC"):
            continue
        our = told_of(sentence)
        if kind == "GGA":
            measured = str(their.gps_qual) in MEASURED
        else:
            measured = their.status == "A" and "".join(their.data[11:12]) not in NOT_MEASURED
        whole = bool(their.lat and their.lon)
        assert our["fix"] is (measured and whole), sentence
        if our["fix"]:
            for text, name in ((their.lat, "latitude"), (their.lon, "longitude")):
                digits = len(text.partition(".")[2])  # ours has two more, of degrees
                assert our[name] == pytest.approx(getattr(their, name), abs=0.51 * 10 ** -(digits + 2)), (
                    sentence
                )
            if kind == "RMC" and their.spd_over_grnd is not None:
                assert our["speed"] == pytest.approx(their.spd_over_grnd * KNOT_M_S), sentence
            if kind == "RMC" and their.datetime is not None:
                assert our["time"] == pytest.approx(their.datetime.timestamp()), sentence
            if kind == "GGA" and their.altitude is not None:
                assert our["altitude"] == pytest.approx(their.altitude), sentence
            compared += 1
    assert compared >= 20


def told_of(sentence: str) -> dict[str, Any]:
    """What our driver makes of one sentence, told with the next instant."""
    driver = NmeaGps(NmeaGpsConfig(bus="b"), None)  # type: ignore[arg-type]
    end = SEALS["nmea"](b"GPGLL,,,,,235959.99,V,N")
    readings = [dict(values) for values in driver.feed(sentence.encode() + b"\r\n" + end + end)]
    return {name: None if isinstance(value, Flagged) else value for name, value in readings[0].items()}


# --- COBS ------------------------------------------------------------------------------------------------


@given(st.binary(max_size=600) | st.binary(max_size=4).map(lambda data: data * 300))
def test_cobs(data: bytes) -> None:
    cobs = pytest.importorskip("cobs.cobs", reason=DEV)
    assert frames.cobs(data) == cobs.encode(data)
    assert frames.uncobs(cobs.encode(data)) == data


@given(st.binary(max_size=40))
def test_what_is_no_cobs_is_none_to_both(data: bytes) -> None:
    cobs = pytest.importorskip("cobs.cobs", reason=DEV)
    try:
        wanted: bytes | None = cobs.decode(data)
    except cobs.DecodeError:
        wanted = None
    try:
        found: bytes | None = frames.uncobs(data)
    except ValueError:
        found = None
    assert found == wanted
