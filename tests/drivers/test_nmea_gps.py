"""NMEA: degrees and minutes, signs, what is old or empty, time, and sentences among other bytes."""

import pytest

from device_agent.devices.reading_builder import ReadingBuilder
from device_agent.driver import Flag, Flagged
from device_agent.testing import SteppedClock, check_driver
from device_agent_drivers.nmea_gps import NmeaGps, NmeaGpsConfig, angle, epoch_s, number

NOT_READY = Flagged(None, Flag.NOT_READY)


def sentence(body: str) -> bytes:
    checksum = 0
    for byte in body.encode():
        checksum ^= byte
    return f"${body}*{checksum:02X}\r\n".encode()


RMC = "GPRMC,123519,A,4807.038,N,01131.000,E,022.4,084.4,230394,003.1,W"
GGA = "GPGGA,123519,4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,"


def fed(*bodies: str, driver: NmeaGps | None = None) -> list[dict]:
    driver = driver or NmeaGps(NmeaGpsConfig(), None)  # type: ignore[arg-type]
    return [dict(values) for values in driver.feed(b"".join(map(sentence, bodies)))]


def test_contract():
    check_driver(NmeaGps)


@pytest.mark.parametrize("order", [(RMC, GGA), (GGA, RMC), ("GPGSV,1,1,00", GGA, "GNGLL,,,,,,V", RMC)])
def test_both_sentences_make_one_reading(order):
    assert sentence(RMC).startswith(b"$GPRMC,123519,A,4807.038,N,01131.000,E,022.4,084.4,230394,003.1,W*6A")
    assert fed(*order) == [
        {
            "latitude": pytest.approx(48.1173),
            "longitude": pytest.approx(11.5166667),
            "altitude": 545.4,
            "speed": pytest.approx(11.5236, abs=1e-4),
            "course": 84.4,
            "satellites": 8,
            "hdop": 0.9,
            "fix": True,
            "time": 764_426_119,
        }
    ]


@pytest.mark.parametrize("talker", ["GP", "GN", "GL", "GA", "BD", "GB", "GQ"])
def test_every_constellation(talker):
    (values,) = fed(talker + RMC[2:], talker + GGA[2:])
    assert values["fix"] is True


@pytest.mark.parametrize(
    ("text", "letter", "letters", "expected"),
    [
        ("4807.038", "N", "NS", 48.1173),
        ("4807.038", "S", "NS", -48.1173),
        ("01131.000", "W", "EW", -(11 + 31 / 60)),
        ("00030.0", "W", "EW", -0.5),  # no sign bit to lose at 0 degrees
        ("0030.0000", "S", "NS", -0.5),
        ("17959.9999", "E", "EW", 179.999998),
        ("9000.000", "N", "NS", 90.0),
        ("12.5", "N", "NS", NOT_READY),
        ("4860.000", "N", "NS", NOT_READY),
        ("9001.000", "N", "NS", NOT_READY),
        ("18000.1", "E", "EW", NOT_READY),
        ("", "N", "NS", NOT_READY),
        ("4807.038", "", "NS", NOT_READY),
        ("4807.038", "E", "NS", NOT_READY),
        ("4807.038", "NS", "NS", NOT_READY),
        ("-4807.038", "N", "NS", NOT_READY),
        ("48.1173", "N", "NS", NOT_READY),
        ("nan", "N", "NS", NOT_READY),
        ("٤٨٠٧", "N", "NS", NOT_READY),
    ],
)
def test_degrees_and_minutes(text, letter, letters, expected):
    value = angle(text, letter, letters)
    assert value == (expected if isinstance(expected, Flagged) else pytest.approx(expected))


def test_the_digits_of_rtk_survive():
    """Ten decimals of a degree are a hundredth of a millimetre, six are eleven centimetres."""
    driver = NmeaGps(NmeaGpsConfig(), None)  # type: ignore[arg-type]
    builder = ReadingBuilder("rover", NmeaGps, NmeaGpsConfig(), SteppedClock())
    place = "5213.12345670,N,12213.12345678,W"
    both = sentence(f"GNRMC,052213.00,A,{place},0.0,,230324,,,R,V")
    both += sentence(f"GNGGA,052213.00,{place},4,12,0.9,545.4,M,46.9,M,,")
    *_, values = driver.feed(both)
    told = builder.measured(values, 1.0).values
    assert (told["latitude"], told["longitude"]) == (52.2187242783, -122.2187242797)


@pytest.mark.parametrize("text", ["", "nan", "inf", "1e3", "1_0", "0x10", " 1", "--1", "."])
def test_what_is_no_number(text):
    assert number(text) == NOT_READY


def test_numbers():
    assert [number(text) for text in ("0", "-3.5", "007.10", ".5", "5.")] == [0.0, -3.5, 7.1, 0.5, 5.0]


@pytest.mark.parametrize(
    ("date", "time", "expected"),
    [
        ("010100", "000000", 946_684_800),
        ("311299", "235959", 946_684_799),
        ("060180", "000000", 315_964_800),
        ("010126", "000000.00", 1_767_225_600),
        ("311225", "235960", 1_767_225_600),  # a leap second
        ("290224", "120000.25", 1_709_208_000.25),
        ("290225", "120000", NOT_READY),
        ("001226", "120000", NOT_READY),
        ("011326", "120000", NOT_READY),
        ("010126", "240000", NOT_READY),
        ("", "120000", NOT_READY),
        ("010126", "", NOT_READY),
    ],
)
def test_time(date, time, expected):
    assert epoch_s(date, time) == expected


@pytest.mark.parametrize(
    ("rmc", "gga"),
    [
        (RMC.replace(",A,", ",V,"), GGA),
        (RMC, GGA.replace(",E,1,", ",E,0,")),
        (RMC, GGA.replace(",E,1,", ",E,6,")),
        (RMC, GGA.replace(",E,1,", ",E,8,")),
        (RMC, GGA.replace(",E,1,", ",E,,")),
        (RMC.replace(",A,", ",,"), GGA),
    ],
)
def test_an_old_position_is_no_position(rmc, gga):
    (values,) = fed(rmc, gga)
    assert values.pop("fix") is False
    assert values.pop("satellites") == 8
    assert set(values.values()) == {NOT_READY}


@pytest.mark.parametrize("mode", ["E", "M", "S", "N"])
def test_a_position_that_the_mode_calls_not_measured(mode):
    (values,) = fed(f"{RMC},{mode}", GGA)
    assert values["fix"] is False
    assert values["latitude"] == NOT_READY


@pytest.mark.parametrize("mode", ["", "A", "D", "R", "F", "P"])
def test_a_position_that_the_mode_calls_measured(mode):
    (values,) = fed(f"{RMC},{mode}", GGA)
    assert (values["fix"], values["latitude"]) == (True, pytest.approx(48.1173))


def test_half_a_position_is_none():
    (values,) = fed(RMC.replace("01131.000,E", ","), GGA.replace("01131.000,E", ","))
    assert values["fix"] is False
    assert values["latitude"] == values["longitude"] == NOT_READY


def test_one_instant_that_is_written_in_two_ways():
    driver = NmeaGps(NmeaGpsConfig(), None)  # type: ignore[arg-type]
    for second in range(20, 23):
        rmc = RMC.replace("123519", f"1235{second}.000")
        (values,) = fed(rmc, GGA.replace("123519", f"1235{second}"), driver=driver)
        assert values["altitude"] == 545.4
        assert values["speed"] == pytest.approx(11.5236, abs=1e-4)


def test_a_receiver_that_sends_its_position_as_gll():
    gll = "GNGLL,4807.038,N,01131.000,E,123519.00,A,A"
    later = gll.replace("123519", "123520")
    (values,) = fed(gll, later)
    assert (values["fix"], values["latitude"]) == (True, pytest.approx(48.1173))
    assert values["time"] == values["altitude"] == NOT_READY
    (values,) = fed(gll.replace(",A,A", ",V,N"), later)
    assert (values["fix"], values["latitude"]) == (False, NOT_READY)
    assert [reading["altitude"] for reading in fed(RMC, GGA, gll)] == [545.4]


def test_empty_fields_are_no_zeros():
    (values,) = fed(
        "GNRMC,123519.00,A,4807.038,N,01131.000,E,,,230394,,,A",
        "GNGGA,123519.00,4807.038,N,01131.000,E,1,,,,M,,M,,",
    )
    assert values["fix"] is True
    for name in ("speed", "course", "altitude", "satellites", "hdop"):
        assert values[name] == NOT_READY
    assert values["latitude"] == pytest.approx(48.1173)


def test_a_cold_receiver():
    driver = NmeaGps(NmeaGpsConfig(), None)  # type: ignore[arg-type]
    for _ in range(3):
        (values,) = fed("GPRMC,,V,,,,,,,,,,N", "GPGGA,,,,,,0,00,99.99,,,,,,", driver=driver)
        assert values["fix"] is False
        assert values["satellites"] == 0
        assert values["latitude"] == values["time"] == values["hdop"] == NOT_READY


def test_one_sentence_alone_is_told_with_the_next_instant():
    later = RMC.replace("123519", "123520")
    (values,) = fed(RMC, later)
    assert values["latitude"] == pytest.approx(48.1173)
    assert values["altitude"] == values["satellites"] == NOT_READY
    (values,) = fed(GGA, GGA)
    assert values["altitude"] == 545.4
    assert values["time"] == values["speed"] == NOT_READY


@pytest.mark.parametrize(
    "noise",
    [b"", b"\x00\xff", b"$GPRMC,1235", b"\xb5\x62\x01\x07", b"$" * 300, b"$" + b"x" * 5000, b"*00\r\n"],
)
def test_sentences_among_other_bytes(noise):
    data = noise + sentence(RMC) + noise + sentence(GGA) + noise
    driver = NmeaGps(NmeaGpsConfig(), None)  # type: ignore[arg-type]
    readings = [values for at in range(len(data)) for values in driver.feed(data[at : at + 1])]
    assert [values["fix"] for values in readings] == [True]


def test_a_wrong_checksum_is_no_sentence():
    driver = NmeaGps(NmeaGpsConfig(), None)  # type: ignore[arg-type]
    data = sentence(RMC) + sentence(GGA).replace(b"545.4", b"945.4")
    assert list(driver.feed(data)) == []
    assert driver.notes() == {"bad_sentences": 1}
    assert list(driver.feed(b"$GPGGA,123519,4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,\r\n")) == []


def test_the_receiver_on_the_board(bench):
    it = bench(NmeaGps, "meter")
    it.driver.open()
    source = it.driver.listen()
    it.board.set("it", latitude=-0.25, longitude=-71.5)
    it.clock.step(1.01)
    it.board.set("it", fix=False)
    it.clock.step(1.0)
    first, second = [values for chunk in source.drain() for values in it.driver.feed(chunk)]
    assert first["latitude"] == pytest.approx(-0.25)
    assert first["longitude"] == pytest.approx(-71.5)
    assert first["time"] == 1_767_225_600
    assert second["fix"] is False
    assert second["longitude"] == NOT_READY
    assert it.driver.present(0.0) == second
    source.close()
