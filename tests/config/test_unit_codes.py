"""Any UCUM code is a unit; what people write instead is answered with the code."""

import pytest

from device_agent.config.unit_codes import DISPLAY_UNITS, unit_code
from device_agent.records import Unit


@pytest.mark.parametrize(
    "code",
    [
        *Unit,
        *DISPLAY_UNITS,
        *("W/m2", "umol/(m2.s)", "umol/m2/s", "uSv/h", "mm/h", "kg.m/s2", "m3.s-1", "1/m3", "10*6/L", "/m3"),
        *("mm[Hg]", "cm[H2O]", "[in_i'Hg]", "[degF]", "[psi]", "k[IU]/L", "dB[SPL]", "l", "l/h", "m[H2O]"),
        *("{pulses}/min", "{count}", "g{dry}/kg", "kg/(m2.(s.K))", "KiBy/s", "Mvar.h", "kvar.h", "%", "m+3"),
    ],
)
def test_a_code_is_taken_as_it_is(code: str) -> None:
    assert unit_code(code) == code


@pytest.mark.parametrize(
    ("text", "code"),
    [
        *(("°C", "Cel"), ("degC", "Cel"), ("celsius", "Cel"), ("°F", "[degF]"), ("°", "deg"), ("Ω", "Ohm")),
        *(
            ("kWh", "kW.h"),
            ("Wh", "W.h"),
            ("VA", "V.A"),
            ("ppm", "[ppm]"),
            ("dBm", "dB[mW]"),
            ("rpm", "/min"),
        ),
        *(("µg/m³", "ug/m3"), ("µmol/(m²·s)", "umol/(m2.s)"), ("m^3/h", "m3/h"), ("µSv/h", "uSv/h")),
        *(("kΩ", "kOhm"), (" V ", "V"), ("m3 / h", "m3/h"), ("pH", "[pH]"), ("psi", "[psi]"), ("Nm", "N.m")),
    ],
)
def test_what_people_write_is_answered_with_the_code(text: str, code: str) -> None:
    with pytest.raises(ValueError, match="is no UCUM code: write") as raised:
        unit_code(text)
    assert f'write "{code}"' in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [" ", "apples", "m//s", "m/", "(m", "m)", "()", "m\n", "[", "[]", "km km", "m" * 99, "Celsius!", "x[IU]"],
)
def test_what_is_no_unit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no UCUM code"):
        unit_code(text)
