"""What is made of the record: axes, text without a font, CSV and refusals."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from device_agent.errors import Rejected
from device_agent.history.axis import number_text, round_step_s, time_ticks, value_ticks
from device_agent.history.chart_text import plain
from device_agent.history.history_service import instant_ms, run_child
from device_agent.history.query import Query, checked_zone
from device_agent.store.history.history_block import HistoryBlock, pack
from device_agent.store.history.history_file import HistoryFile

T0 = 1_780_000_000_000 // 3_600_000 * 3_600_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An hour of two devices, one of them with text, nulls and flags, the beginning thinned."""
    file = HistoryFile(tmp_path / "h.db", keep_ms=10**12, max_bytes=10**8)
    minutes = [T0 - 120_000, T0 - 60_000]
    old = HistoryBlock(
        "climate", 60_000, ("temperature",), minutes, [[20.5, 21.0]], [60, 60], [[20, 20.5]], [[21, 22]]
    )
    at = [T0 + 1000 * n for n in range(100)]
    new = HistoryBlock(
        "climate", 0, ("temperature",), at, [[21.5] * 99 + [None]], flags={99: {"temperature": "no_answer"}}
    )
    meter = HistoryBlock("meter", 0, ("on", "label"), at[:3], [[True, False, True], ["a,b", 'say "c"', "=d"]])
    file.append(map(pack, (old, new, meter)))
    file.close()
    return tmp_path / "h.db"


def query(path: Path, **options: Any) -> Query:
    units = {"climate": {"temperature": "Cel"}, "meter": {"on": "", "label": ""}}
    base = {"path": str(path), "devices": ("climate", "meter"), "from_ms": T0 - 10**6, "to_ms": T0 + 10**6}
    return Query(**{**base, "units": units, **options})


async def test_csv_has_a_column_for_everything(path: Path) -> None:
    export = await run_child(query(path, format="csv"), 30)
    rows = list(csv.DictReader(io.StringIO(export.data.decode())))
    assert len(rows) == export.count == 105
    assert rows[0]["time"].endswith(":58:00.000Z")
    assert [rows[0][name] for name in ("count", "temperature", "temperature_min", "temperature_max")] == [
        "60",
        "20.5",
        "20.0",
        "21",
    ]
    meter = [row for row in rows if row["device"] == "meter"]
    assert [(row["on"], row["label"]) for row in meter] == [("1", "a,b"), ("0", 'say "c"'), ("1", "'=d")]
    assert (rows[-1]["temperature"], rows[-1]["flags"]) == ("", "temperature:no_answer")


async def test_json_keeps_nulls_flags_and_longer_steps(path: Path) -> None:
    export = await run_child(query(path, devices=("climate",), every_ms=10_000), 30)
    readings = json.loads(export.data)["readings"]
    assert readings[0]["thinned"] == {
        "count": 60,
        "from_at": T0 - 120_000,
        "to_at": T0 - 60_000,
        "minimum": {"temperature": 20},
        "maximum": {"temperature": 21},
    }
    assert [r["thinned"]["count"] for r in readings] == [60, 60, *[10] * 10]
    whole = json.loads((await run_child(query(path, devices=("climate",)), 30)).data)["readings"]
    assert whole[-1] == {
        "device": "climate",
        "at": T0 + 99_000,
        "values": {"temperature": None},
        "flags": {"temperature": "no_answer"},
    }


async def test_a_picture_of_booleans_texts_and_nothing(path: Path) -> None:
    for devices in (("climate", "meter"), ("meter",), ("nobody",)):
        export = await run_child(query(path, devices=devices, format="png"), 30)
        assert export.data.startswith(b"\x89PNG")
    assert export.count == 0


async def test_too_much_is_refused_with_a_remedy(path: Path) -> None:
    for form in ("json", "csv", "png"):
        with pytest.raises(Rejected, match="ask for fewer devices, a shorter time"):
            await run_child(query(path, format=form, limit_bytes=1000), 30)


async def test_a_file_that_is_gone_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="cannot be read"):
        await run_child(query(tmp_path / "nothing.db"), 30)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1_777_615_200_000, 1_777_615_200_000),
        ("1777615200000", 1_777_615_200_000),
        ("2026-05-01T06:00:00Z", 1_777_615_200_000),
        ("2026-05-01T08:00:00+02:00", 1_777_615_200_000),
        ("2026-05-01T06:00", 1_777_615_200_000),
        ("2026-05-01", 1_777_593_600_000),
    ],
)
def test_instants(value: int | str, expected: int) -> None:
    assert instant_ms(value, "from") == expected


@pytest.mark.parametrize("value", [-1, 10**18, "soon", "", "²", "2026-13-01", "9" * 400])
def test_what_is_no_instant(value: int | str) -> None:
    with pytest.raises(Rejected, match=r"from: .* is no instant"):
        instant_ms(value, "from")


# -- days and names -----------------------------------------------------------------------------------------


@pytest.fixture
def hourly(tmp_path: Path) -> Path:
    """A reading each hour from 2026-03-27 to 2026-03-31 in UTC; on the 30th the device got another name."""
    file = HistoryFile(tmp_path / "days.db", keep_ms=10**12, max_bytes=10**8)
    for hour in range(96):
        at = instant_ms("2026-03-27", "at") + hour * 3_600_000
        name = "old" if hour < 72 else "new"
        file.append([pack(HistoryBlock(name, 0, ("level",), [at], [[float(hour)]]))])
    file.close()
    return tmp_path / "days.db"


def days(path: Path, **options: Any) -> Query:
    span = {"from_ms": instant_ms("2026-03-27", "from"), "to_ms": instant_ms("2026-03-31", "to")}
    options = {"every_ms": 86_400_000, "zone": "Europe/Berlin", "devices": ("old",), **options}
    return Query(**{"path": str(path), **span, **options})


async def test_days_of_a_time_zone(hourly: Path) -> None:
    """The 29th has 23 hours there."""
    answer = json.loads((await run_child(days(hourly), 30)).data)
    assert answer["zone"] == "Europe/Berlin"
    steps = [reading["thinned"] for reading in answer["readings"]]
    assert [step["count"] for step in steps] == [23, 24, 23, 2]
    assert [(step["to_at"] - step["from_at"]) / 3_600_000 for step in steps] == [24, 24, 23, 24]
    rows = csv.DictReader(io.StringIO((await run_child(days(hourly, format="csv"), 30)).data.decode()))
    assert [row["time"] for row in rows] == [
        "2026-03-27T00:00:00.000+01:00",
        "2026-03-28T00:00:00.000+01:00",
        "2026-03-29T00:00:00.000+01:00",
        "2026-03-30T00:00:00.000+02:00",
    ]
    in_utc = json.loads((await run_child(days(hourly, zone=""), 30)).data)["readings"]
    assert [reading["thinned"]["count"] for reading in in_utc] == [24, 24, 24]


async def test_a_picture_of_days(hourly: Path) -> None:
    pytest.importorskip("PIL")
    assert (await run_child(days(hourly, format="png"), 60)).count == 4


async def test_a_device_that_had_another_name(hourly: Path) -> None:
    """One row for a day in which it changed, under its present name."""
    both = days(hourly, devices=("new",), formerly={"new": ["old", "never"]})
    readings = json.loads((await run_child(both, 30)).data)["readings"]
    assert {reading["device"] for reading in readings} == {"new"}
    assert [reading["thinned"]["count"] for reading in readings] == [23, 24, 23, 24, 2]
    alone = json.loads((await run_child(days(hourly, devices=("new",)), 30)).data)["readings"]
    assert [reading["thinned"]["count"] for reading in alone] == [22, 2]


@pytest.mark.parametrize(
    ("zone", "every_s", "why"),
    [
        ("Europe/Berlin", None, "it is for steps of whole days"),
        ("Europe/Berlin", 3600, "it is for steps of whole days"),
        ("Europe/Berlin", 86_400.5, "it is for steps of whole days"),
        ("Mars/Olympus", 86_400, "there is no time zone 'Mars/Olympus'"),
    ],
)
def test_zones_that_are_refused(zone: str, every_s: float | None, why: str) -> None:
    with pytest.raises(Rejected, match=f"zone: {why}"):
        checked_zone(zone, every_s)
    assert checked_zone(None, every_s) == ""


# -- axes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high"),
    [(0, 1), (15.3, 26.5), (1013.2, 1013.2), (-1e-7, 1e-7), (0, 0), (-5e8, 3e9), (99.99, 100.01)],
)
def test_ticks_are_round_and_cover_the_values(low: float, high: float) -> None:
    ticks = value_ticks(low, high)
    assert 3 <= len(ticks) <= 8
    assert ticks[0] <= low
    assert high <= ticks[-1]
    step = ticks[1] - ticks[0]
    assert len({number_text(tick, step) for tick in ticks}) == len(ticks)


@pytest.mark.parametrize("span_s", [5, 60, 3600, 86_400, 7 * 86_400, 90 * 86_400, 3000 * 86_400])
def test_times_are_round_and_few(span_s: int) -> None:
    ticks = time_ticks(T0, T0 + span_s * 1000)
    assert 1 <= len(ticks) <= 10
    assert all(T0 <= at_ms <= T0 + span_s * 1000 for at_ms, _ in ticks)
    assert all(label for _, label in ticks)
    assert span_s / round_step_s(span_s, 48) <= 48 or span_s > 365 * 48 * 86_400


def test_without_a_font_the_units_are_spelled() -> None:
    assert plain("21 °C, 3 µg/m³, 5 Ω, Gewächshaus – 7") == "21 °C, 3 ug/m3, 5 Ohm, Gewachshaus  7"
