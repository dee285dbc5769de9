"""The time that a point tells: read alike from JSON, lines, frames, maps and answers."""

from typing import Any

import msgpack
import pytest
from pydantic import ValidationError

from device_agent.driver import Dated, Flag, Flagged, MqttMessage
from device_agent_drivers.checksums import sum8
from device_agent_drivers.configured import PointOptions, TimeStamp
from device_agent_drivers.framed_msgpack import FramedMsgpack, FramedMsgpackConfig
from device_agent_drivers.frames import FRAMINGS
from device_agent_drivers.mqtt_topic import MqttTopic, MqttTopicConfig
from device_agent_drivers.serial_frames import SerialFrames, SerialFramesConfig
from device_agent_drivers.serial_lines import SerialLines, SerialLinesConfig

AT_S = 1_764_417_600
AT_MS = AT_S * 1000.0


@pytest.mark.parametrize(
    ("options", "value", "at_ms"),
    [
        ({"format": "unix"}, AT_S, AT_MS),
        ({"format": "unix"}, AT_S + 0.25, AT_MS + 250),
        ({"format": "unix_ms"}, AT_S * 1000, AT_MS),
        ({"format": "unix"}, True, None),
        ({"format": "unix"}, Flagged(None, Flag.NO_ANSWER), None),
        ({"format": "iso8601"}, "2025-11-29T12:00:00Z", AT_MS),
        ({"format": "iso8601"}, "2025-11-29T13:00:00+01:00", AT_MS),
        ({"format": "iso8601"}, "2025-11-29T12:00:00.250", AT_MS + 250),
        ({"format": "iso8601", "zone": "Europe/Berlin"}, "2025-11-29T13:00:00", AT_MS),
        ({"format": "iso8601", "zone": "Europe/Berlin"}, "2025-11-29T12:00:00Z", AT_MS),
        ({"format": "iso8601"}, "yesterday", None),
        ({"format": "iso8601"}, "", None),
        ({"format": "iso8601"}, Flagged(None, Flag.NO_ANSWER), None),
        ({"format": "iso8601"}, "9999-12-31T23:59:59-23:59", 253_402_387_139_000.0),
    ],
)
def test_what_a_stamp_tells(options: dict[str, Any], value: Any, at_ms: float | None) -> None:
    assert TimeStamp.model_validate(options).at_ms(value) == at_ms


@pytest.mark.parametrize("format_", ["unix", "unix_ms", "iso8601"])
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "local"])
def test_a_simulated_far_end_writes_what_is_read(format_: str, zone: str) -> None:
    stamp = TimeStamp.model_validate({"format": format_, "zone": zone})
    assert stamp.at_ms(stamp.written(AT_S)) == AT_MS


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"time": {"format": "iso8601"}}, 'needs `type = "string"`'),
        ({"time": {"format": "unix"}, "type": "string"}, 'needs `type = "number"`'),
        ({"time": {"format": "unix"}, "type": "boolean"}, 'needs `type = "number"`'),
        ({"time": {"format": "unix"}, "write": True, "safe": 0}, "a point that is not written"),
        ({"time": {"format": "unix", "zone": "Mars"}}, "there is no time zone 'Mars'"),
        ({"time": {}}, "format"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        PointOptions.model_validate(options)


STAMP = {"time": {"format": "unix", "max_age_s": 50}}


def told(driver: Any, chunk: Any) -> Dated:
    (values,) = driver.feed(chunk)
    assert isinstance(values, Dated), values
    assert values.max_age_s == 50
    return values


def test_lines() -> None:
    points = {"level": {}, "at": STAMP}
    for form, line in (
        ({"format": "json"}, b'{"level": 5, "at": %d}'),
        ({"format": "csv", "columns": ["level", "at"]}, b"5,%d"),
        ({"pattern": r"L=(?P<level>\d+) T=(?P<at>\d+)"}, b"L=5 T=%d"),
    ):
        driver = SerialLines(SerialLinesConfig.model_validate({"points": points, **form}), None)  # type: ignore[arg-type]
        values = told(driver, line % AT_S + b"\n")
        assert (values["level"], values.at_ms) == (5, AT_MS)


def test_frames_and_maps() -> None:
    points = {"level": {"at": 1}, "at": {"at": 2, "code": "u32", **STAMP}}
    frame = {"start": "AA", "length": 7, "checksum": "sum8"}
    config = SerialFramesConfig.model_validate({"frame": frame, "points": points})
    driver = SerialFrames(config, None)  # type: ignore[arg-type]
    body = b"\xaa\x05" + AT_S.to_bytes(4, "big")
    assert told(driver, body + bytes((sum8(body),))).at_ms == AT_MS
    maps = FramedMsgpackConfig.model_validate({"points": {"level": {}, "at": STAMP}})
    controller = FramedMsgpack(maps, None)  # type: ignore[arg-type]
    sent = FRAMINGS["cobs"].framed(msgpack.packb({"level": 5, "at": AT_S}))
    assert told(controller, sent).at_ms == AT_MS


def test_a_message_without_it_came_now_and_a_retained_one_with_it_has_an_age() -> None:
    points = {"level": {"topic": "t", "path": "level"}, "at": {"topic": "t", "path": "ts", **STAMP}}
    config = MqttTopicConfig.model_validate({"points": points})
    driver = MqttTopic(config, None)  # type: ignore[arg-type]
    (plain,) = driver.feed(MqttMessage("t", b'{"level": 4}'))
    assert not isinstance(plain, Dated)
    (kept,) = driver.feed(MqttMessage("t", b'{"level": 4}', retained=True))
    assert kept["level"] == Flagged(4, Flag.STALE)
    values = told(driver, MqttMessage("t", b'{"level": 5, "ts": %d}' % AT_S, retained=True))
    assert (values["level"], values.at_ms) == (5, AT_MS)
    assert told(driver, MqttMessage("t", b'{"level": 5, "ts": null}')).at_ms is None
