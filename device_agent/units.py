"""Units as people write them; the wire keeps UCUM's spelling."""

UNITS = {
    "Cel": "°C",
    "1": "",
    "deg": "°",
    "deg/s": "°/s",
    "m/s2": "m/s²",
    "m3": "m³",
    "m3/h": "m³/h",
    "g/m3": "g/m³",
    "ug/m3": "µg/m³",
    "uT": "µT",
    "uS/cm": "µS/cm",
    "Ohm": "Ω",
    "V.A": "VA",
    "W.h": "Wh",
    "kW.h": "kWh",
    "By": "B",
    "MBy": "MB",
    "[ppm]": "ppm",
    "[ppb]": "ppb",
    "[pH]": "pH",
    "dB[mW]": "dBm",
}
"""UCUM's spelling to what people write; a unit that is not here is written as it is."""
