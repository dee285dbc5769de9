"""`history` without a time: the table begins where the record does, in steps that fit."""

import argparse
import json
import math
import time
from collections.abc import Mapping
from typing import Any

import pytest

from device_agent.cli.history import add_arguments, show

DAY_MS = 86_400_000


class Record:
    """Answers as the daemon does: a reading every 5 s since `age_s`, in means of `every_s`."""

    def __init__(self, age_s: float) -> None:
        self.begin_ms = int((time.time() - age_s) * 1000)
        self.asked = 0

    def __call__(self, question: Mapping[str, Any]) -> bytes:
        self.asked += 1
        step_ms = round(question.get("every_s", 5) * 1000)
        first = max(self.begin_ms, question["from"]) // step_ms
        last = math.ceil(question["to"] / step_ms)
        rows = [
            {
                "device": "climate", "at": n * step_ms, "values": {"temperature": 21.5},
                "thinned": {"count": 2, "minimum": {"temperature": 21}, "maximum": {"temperature": 22}},
            }
            for n in range(first, last)
        ]  # fmt: skip
        units = {"climate": {"temperature": "Cel"}}
        every_s = question.get("every_s")
        return json.dumps({"every_s": every_s, "units": units, "readings": rows}).encode()


def shown(record: Record, capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert show(parser.parse_args(["climate", *words]), record) == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("age_s", "fewest", "step"),
    [(30, 5, "1 s"), (120, 20, "5 s"), (7200, 20, "300 s"), (50_000, 25, "1800 s"), (1e6, 40, "1800 s")],
)
def test_the_span_fits_what_there_is(
    age_s: float, fewest: int, step: str, capsys: pytest.CaptureFixture[str]
) -> None:
    record = Record(age_s)
    lines = shown(record, capsys)
    assert lines[0].split() == ["time", "temperature", "[°C]"]
    assert lines[-1] == f"means of {step}, with minimum and maximum"
    assert fewest <= len(lines) - 2 <= 50
    assert record.asked <= 6


def test_a_time_that_was_given_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    record = Record(120)
    # One half hour, or two where a new one has just begun, between head and foot.
    assert len(shown(record, capsys, "--from", "24h")) in (3, 4)
    assert record.asked == 1


def test_nothing_recorded_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(Record(-3600), capsys) == ["no readings in this time"]
