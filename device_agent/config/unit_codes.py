"""Unit codes: the Unified Code for Units of Measure (https://ucum.org), case sensitive.

The units defined by convention, which stand in square brackets, are not listed: any word in brackets passes.
"""

import re

from device_agent.records import Unit

_PREFIXES = "Q R Y Z E P T G M k h da d c m u n p f a z y r q Ki Mi Gi Ti"
_METRIC = (
    "m s g rad K C cd mol sr Hz N Pa J W A V F Ohm S Wb Cel T H lm lx Bq Gy Sv l L ar t bar u eV pc kat U "
    "Gal dyn erg P Bi St Mx G Oe Gb sb Lmb ph Ci R RAD REM cal mho Np B bit By Bd eq osm g% tex st var m[]"
    " B[] []"
)
_OTHERS = (
    "% 10* 10^ gon deg ' '' min h d wk a a_t a_j a_g mo mo_s mo_j mo_g AU atm att b Ao circ sph bit_s den"
)
PREFIXES, METRIC, OTHERS = (frozenset(words.split()) for words in (_PREFIXES, _METRIC, _OTHERS))
ATOMS = OTHERS | METRIC | {prefix + atom for prefix in PREFIXES for atom in METRIC}

DISPLAY_UNITS = {
    "Cel": "°C",
    "1": "",
    "deg": "°",
    "deg/s": "°/s",
    "m/s2": "m/s²",
    "m3": "m³",
    "m3/h": "m³/h",
    "g/m3": "g/m³",
    "ug/m3": "µg/m³",
    "W/m2": "W/m²",
    "uT": "µT",
    "uS/cm": "µS/cm",
    "uSv/h": "µSv/h",
    "umol/(m2.s)": "µmol/(m²·s)",
    "Ohm": "Ω",
    "V.A": "VA",
    "W.h": "Wh",
    "kW.h": "kWh",
    "A.h": "Ah",
    "By": "B",
    "MBy": "MB",
    "[ppm]": "ppm",
    "[ppb]": "ppb",
    "[pH]": "pH",
    "[degF]": "°F",
    "dB[mW]": "dBm",
}
"""UCUM codes to what people write; other units are written as they are."""

_MEANT = {text: code for code, text in DISPLAY_UNITS.items() if code not in ("1", "By", "MBy")} | {
    "℃": "Cel", "degc": "Cel", "celsius": "Cel", "℉": "[degF]", "degf": "[degF]", "fahrenheit": "[degF]",
    "kva": "kV.A", "MWh": "MW.h", "mAh": "mA.h", "rpm": "/min", "1/min": "/min", "psi": "[psi]",
    "mmhg": "mm[Hg]", "inhg": "[in_i'Hg]", "Nm": "N.m", "mph": "[mi_i]/h", "ohm": "Ohm", "litre": "L",
    "liter": "L", "gal": "[gal_us]", "ft": "[ft_i]", "in": "[in_i]", "sec": "s", "hr": "h", "hour": "h",
}  # fmt: skip
_LETTERS = str.maketrans(
    {
        "µ": "u",
        "μ": "u",
        "²": "2",
        "³": "3",
        "·": ".",
        "⋅": ".",
        "Ω": "Ohm",
        "\u2126": "Ohm",
        "^": None,
        "°": "deg",
    }
)


def unit_code(text: str) -> str:
    """The text, if it is a UCUM code or one of `Unit`. Raises ValueError with the code that is meant."""
    if text in tuple(Unit) or (text not in _MEANT and _is_code(text)):
        return text
    word = text.strip()
    plain = word.translate(_LETTERS).replace(" ", "")
    meant = _MEANT.get(word) or _MEANT.get(word.lower()) or (plain if _is_code(plain) else "")
    raise ValueError(
        f'is no UCUM code: write "{meant}"' if meant else "is no UCUM code, such as Cel, hPa, m3/h"
    )


def _is_code(text: str) -> bool:
    if re.fullmatch("[!-~]{1,64}", text) is None or "[]" in text:
        return False
    # What was annotated in braces, and each inner term that is one, stands for the unit 1.
    text = re.sub(r"(^|[./(])\{[^{}]*\}", r"\g<1>1", text)
    text = re.sub(r"\[[^][]+\]", "[]", re.sub(r"\{[^{}]*\}", "", text))
    while (inner := re.search(r"\(([^()]*)\)", text)) is not None and _is_term(inner[1]):
        text = text[: inner.start()] + "m" + text[inner.end() :]
    return _is_term(text)


def _is_term(text: str) -> bool:
    return all(map(_is_component, re.split("[./]", text.removeprefix("/"))))


def _is_component(text: str) -> bool:
    """A number, or a unit with its exponent."""
    unit = re.sub(r"[+-]?\d+$", "", text)
    return text.isdecimal() or unit in ATOMS
