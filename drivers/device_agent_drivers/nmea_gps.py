"""A satellite receiver with NMEA 0183 on a serial line: RMC, GGA and GLL sentences, of any constellation.

One reading for each instant that the receiver names, once RMC and GGA are there. A position counts only
where every sentence calls it valid: receivers go on sending the last one in a tunnel. The sentences are
read here and not by pynmea2: it takes its checksum apart, and leaves all that is doubtful to its caller.

Dialects that it was tried with: NMEA 2.3 with modes, 4.1 with a navigational status, RTK with ten digits,
modems that put a word of their own before the sentence.
"""

import calendar
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from device_agent.driver import (
    DriverConfig,
    Flag,
    Flagged,
    Listener,
    Point,
    SerialBus,
    Unit,
    Value,
    Values,
)
from device_agent_drivers.far_end import OwnsPort
from device_agent_drivers.telegrams import TELEGRAMS, TelegramReader

KNOT_M_S = 1852 / 3600
# 2026: receivers whose week counter has run over (1024 weeks) send a time before this driver was written.
EARLIEST_S = 1_767_225_600
NUMBER = re.compile(r"-?[0-9]+(\.[0-9]*)?|-?\.[0-9]+")  # float() takes "nan", "1e9" and "1_0"
ANGLE = re.compile(r"([0-9]{1,3})([0-9]{2}(?:\.[0-9]*)?)")
CLOCK_TIME = re.compile(r"([0-9]{2})([0-9]{2})([0-9]{2}(?:\.[0-9]*)?)")
DATE = re.compile(r"([0-9]{2})([0-9]{2})([0-9]{2})")

# GGA quality: 0 none, 6 dead reckoning, 7 entered by hand, 8 simulator; RMC's status is V for the like.
MEASURED = ("1", "2", "3", "4", "5", "9")
# Mode of RMC and GLL since NMEA 2.3: E estimated, M entered by hand, S simulator, N none.
NOT_MEASURED = ("E", "M", "S", "N")
# Of each sentence: the fields of time, latitude and longitude.
KINDS = {"GGA": (1, 2, 4), "RMC": (1, 3, 5), "GLL": (5, 1, 3)}
WHOLE = {"GGA", "RMC"}
NOT_READY = Flagged(None, Flag.NOT_READY)


class NmeaGpsConfig(DriverConfig):
    driver: Literal["nmea-gps"] = "nmea-gps"


class NmeaGps(OwnsPort, Listener[NmeaGpsConfig, SerialBus]):
    default_stale_after_s = 10.0  # receivers send every second unless configured otherwise
    points = (
        Point("latitude", Unit.DEGREE, low=-90, high=90, description="North is positive."),
        Point("longitude", Unit.DEGREE, low=-180, high=180, description="East is positive."),
        Point("altitude", Unit.METRE, description="Above mean sea level."),
        Point("speed", Unit.METRE_PER_SECOND, low=0, description="Over ground."),
        Point("course", Unit.DEGREE, low=0, high=360, description="Over ground, from true north."),
        Point("satellites", Unit.ONE, "integer", low=0, description="Used for the position."),
        Point("hdop", Unit.ONE, low=0, description="Horizontal dilution of precision."),
        Point("fix", type="boolean", description="Whether the position is measured now."),
        Point("time", Unit.SECOND, low=EARLIEST_S, description="UTC, seconds since 1970."),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._reader = TelegramReader(TELEGRAMS["nmea"])
        self._begin()

    def _begin(self) -> None:
        self._reader.clear()
        self._last: Values | None = None
        self._instant = ""
        self._sentences: dict[str, list[str]] = {}
        self._told = False

    @staticmethod
    def simulator(config: NmeaGpsConfig) -> Any:
        from device_agent_drivers.simulated.nmea_gps import SimulatedGps

        return SimulatedGps()

    def open(self) -> None:
        self._begin()
        self.bus.discard_input()

    def notes(self) -> Mapping[str, int | str]:
        return {"bad_sentences": self._reader.bad} if self._reader.bad else {}

    def present(self, monotonic_s: float) -> Values | None:
        return self._last

    # -- sentences ----------------------------------------------------------------------------------------

    def feed(self, chunk: bytes) -> Iterator[Values]:
        for text in self._reader.feed(chunk):
            yield from self._take(text[1:].decode("latin-1").split(","))

    def _take(self, fields: list[str]) -> Iterator[Values]:
        kind = fields[0][-3:]
        if kind not in KINDS or fields[0].startswith("P"):
            return
        fields = fields + [""] * (15 - len(fields))
        # Receivers write one instant in different ways: 123519 and 123519.00.
        instant = fields[KINDS[kind][0]]
        instant = instant.rstrip("0").rstrip(".") if "." in instant else instant
        if kind not in WHOLE and not instant:
            return
        if instant != self._instant or kind in self._sentences:
            if self._sentences and not self._told:
                yield self._told_of()
            self._instant, self._sentences, self._told = instant, {}, False
        self._sentences[kind] = fields
        if not self._told and self._sentences.keys() >= WHOLE:
            yield self._told_of()

    def _told_of(self) -> Values:
        self._told = True
        self._last = values_of(self._sentences)
        return self._last


# --- from fields to values -------------------------------------------------------------------------------


def values_of(sentences: Mapping[str, list[str]]) -> dict[str, Value | Flagged]:
    """The reading of one instant from its sentences' fields."""
    rmc, gga = sentences.get("RMC"), sentences.get("GGA")
    latitude, longitude = position(sentences)
    fix = all(map(is_measured, sentences, sentences.values()))
    # Half a position is none.
    fix = fix and not isinstance(latitude, Flagged) and not isinstance(longitude, Flagged)
    values: dict[str, Value | Flagged] = dict.fromkeys((p.name for p in NmeaGps.points), NOT_READY)
    values["fix"] = fix
    if gga is not None:
        count = number(gga[7])
        values["satellites"] = NOT_READY if isinstance(count, Flagged) else int(count)
    if not fix:
        return values
    values["latitude"], values["longitude"] = latitude, longitude
    if rmc is not None:
        speed = number(rmc[7])
        values["speed"] = speed if isinstance(speed, Flagged) else speed * KNOT_M_S
        values["course"] = number(rmc[8])
        values["time"] = epoch_s(rmc[9], rmc[1])
    if gga is not None:
        values["hdop"] = number(gga[8])
        values["altitude"] = number(gga[9])
    return values


def is_measured(kind: str, fields: list[str]) -> bool:
    """Whether the sentence calls its position measured now."""
    if kind == "GGA":
        return fields[6] in MEASURED
    status, mode = (fields[2], fields[12]) if kind == "RMC" else (fields[6], fields[7])
    return status == "A" and mode not in NOT_MEASURED


def position(sentences: Mapping[str, list[str]]) -> tuple[float | Flagged, float | Flagged]:
    """Latitude and longitude, of the sentence with the most digits by the standard."""
    for kind, (_, latitude, longitude) in KINDS.items():
        if (fields := sentences.get(kind)) is not None:
            north = angle(fields[latitude], fields[latitude + 1], "NS")
            return north, angle(fields[longitude], fields[longitude + 1], "EW")
    return NOT_READY, NOT_READY


def number(text: str) -> float | Flagged:
    """An empty field is no zero."""
    return float(text) if NUMBER.fullmatch(text) else NOT_READY


def angle(text: str, letter: str, letters: str) -> float | Flagged:
    """Degrees from (d)ddmm.mmmm; the sign is the letter, and holds for 0 degrees and some minutes too."""
    found = ANGLE.fullmatch(text)
    if found is None or len(letter) != 1 or letter not in letters:
        return NOT_READY
    minutes = float(found[2])
    # With two more decimals than the minutes: those of RTK are fractions of a millimetre.
    degrees = round(int(found[1]) + minutes / 60, len(found[2].partition(".")[2]) + 2)
    if minutes >= 60 or degrees > (90 if letters == "NS" else 180):
        return NOT_READY
    return -degrees if letter == letters[1] else degrees


def epoch_s(date: str, time: str) -> float | Flagged:
    """Seconds since 1970 from ddmmyy and hhmmss.ss; a leap second, 60, is the next one's first."""
    day, clock = DATE.fullmatch(date), CLOCK_TIME.fullmatch(time)
    if day is None or clock is None:
        return NOT_READY
    month, of_month = int(day[2]), int(day[1])
    # The system began in 1980. Receivers whose week counter has run over do send such years.
    year = int(day[3]) + (1900 if int(day[3]) >= 80 else 2000)
    hour, minute, second = int(clock[1]), int(clock[2]), float(clock[3])
    if not (1 <= month <= 12 and 1 <= of_month <= calendar.monthrange(year, month)[1]):
        return NOT_READY
    if hour > 23 or minute > 59 or second >= 61:
        return NOT_READY
    return calendar.timegm((year, month, of_month, 0, 0, 0)) + hour * 3600 + minute * 60 + second
