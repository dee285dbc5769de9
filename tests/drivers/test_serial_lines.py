"""Instruments that speak in lines: formats, noise, commands."""

import json
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from device_agent.driver import ChipReset, DriverError, Flag, Flagged, NoAnswer
from device_agent.errors import BusTimeout
from device_agent_drivers.lines import SILENCE_S
from device_agent_drivers.serial_lines import SerialLines, SerialLinesConfig
from device_agent_drivers.simulated.serial_lines import SEALS
from device_agent_drivers.telegrams import TELEGRAMS

SCALE = {
    "format": "regex",
    "pattern": r"^W +(?P<weight>-?[0-9.]+)",
    "command": "SP {setpoint}\n",
    "points": {
        "weight": {"unit": "g"},
        "setpoint": {"unit": "g", "write": True, "minimum": 0, "maximum": 500, "safe": 0},
    },
}
NO_ANSWER = Flagged(None, Flag.NO_ANSWER)
OVERFLOW = Flagged(None, Flag.OVERFLOW)


class Port:
    """What was written, and nothing to read."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.sent.append(data)

    def discard_input(self) -> None:
        self.sent.append(b"<discard>")


def lines(**options) -> SerialLines:
    return SerialLines(SerialLinesConfig.model_validate(options), Port())  # type: ignore[arg-type]


def one(kind: str = "number", **options) -> SerialLines:
    point = {"type": kind, **options.pop("point", {})}
    return lines(format="csv", columns=["value"], points={"value": point}, **options)


def fed(driver: SerialLines, data: bytes) -> list[dict]:
    return [dict(values) for values in driver.feed(data)]


# --- the example of the contract -------------------------------------------------------------------------


def test_the_scale():
    driver = lines(**SCALE)
    driver.open()
    assert driver.bus.sent == [b"<discard>", b"SP 0\n"]
    assert fed(driver, b"W  99\r\nW  12.5\r\nW -3\r\n") == [{"weight": 12.5}, {"weight": -3.0}]
    assert driver.write({"setpoint": 250}) == {}
    assert driver.bus.sent[-1] == b"SP 250\n"
    driver.safe()
    assert driver.bus.sent[-1] == b"SP 0\n"
    assert driver.present(0.0) == {"weight": -3.0, "setpoint": 0}


def test_the_scale_on_a_board(bench):
    it = bench(SerialLines, "meter", **SCALE)
    it.driver.open()
    assert it.board.sent("meter") == b"SP 0\n"
    source = it.handle.listen()
    it.board.feed("meter", b"25\r\nW  7.25\r\n")
    it.board.set("it", weight=8.0)
    readings = [values["weight"] for chunk in source.drain() for values in it.driver.feed(chunk)]
    assert readings == [7.25, 8.0]
    it.driver.write({"setpoint": 120.0})
    assert it.board.chip("it").outputs() == {"setpoint": 120.0}


def test_points_are_as_configured():
    driver = lines(**SCALE)
    weight, setpoint = driver.points
    assert (weight.unit, weight.write, setpoint.maximum) == ("g", False, 500)
    assert SerialLines.safe_of(driver.config) == {"setpoint": 0}


# --- what arrives ----------------------------------------------------------------------------------------


@given(st.lists(st.integers(min_value=1, max_value=9), max_size=30))
def test_chunks_of_any_size_give_the_same_readings(sizes):
    driver, data = lines(**SCALE), b"noise\nW 1\r\nW 2\r\n\r\nW 3\r\nW 4"
    readings: list[dict] = []
    for size in sizes:
        readings += fed(driver, data[:size])
        data = data[size:]
    readings += fed(driver, data + b"\n")
    assert [values["weight"] for values in readings] == [1, 2, 3, 4]
    assert driver._reader.garbage == 1


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_noise_never_raises(chunks):
    for driver in (lines(**SCALE), one("integer"), lines(format="json", points={"a": {"path": "b.0"}})):
        for chunk in chunks:
            fed(driver, chunk)
        assert fed(driver, b"\n") is not None
        assert len(driver._reader._rest) <= 1024


def test_an_endless_line_is_forgotten_and_counted():
    driver = lines(**SCALE, max_line_bytes=64)
    for _ in range(1000):
        assert fed(driver, b"W 123 " * 50) == []
        assert len(driver._reader._rest) <= 64
    assert fed(driver, b"W 1\nW 2\n") == [{"weight": 2.0}]
    assert driver._reader.too_long == 1


def test_a_line_end_split_between_chunks_of_a_too_long_line():
    driver = lines(**SCALE, max_line_bytes=16, line_end="<>")
    assert fed(driver, b"x" * 40 + b"<") == []
    assert [values["weight"] for values in fed(driver, b">W 5<>")] == [5.0]


@pytest.mark.parametrize(
    "text", ["nan", "NaN", "-nan", "", "----", "1_000", "0x10", "1,5", "\u0661\u0662", "\uff11"]
)
def test_what_is_no_number(text):
    assert fed(one(separator=";"), f"{text};\n".encode()) == []  # another number of columns
    driver = lines(format="csv", columns=["value", "other"], separator=";", points={"value": {}, "other": {}})
    assert fed(driver, f"{text};1\n".encode()) == [{"value": NO_ANSWER, "other": 1.0}]


@pytest.mark.parametrize("text", ["inf", "-Infinity", "1e999"])
def test_infinity_is_an_overflow(text):
    assert fed(one(), f"{text}\n".encode()) == [{"value": Flagged(None, Flag.OVERFLOW)}]


PRINTED = [
    ("-  450.38 GN", {"suffix": ["GN"]}, -450.38),
    ("+   62.916 GN", {"suffix": ["GN"]}, 62.916),
    ("+  1.234kg", {"unit": "kg"}, 1.234),
    ("+  1.234lb", {"unit": "kg"}, NO_ANSWER),
    ("  21.5 C", {"unit": "Cel"}, 21.5),
    ("21.5 °C", {"unit": "Cel"}, 21.5),
    ("70.7 F", {"unit": "Cel"}, NO_ANSWER),
    ("- 1.234,5", {"decimal": ",", "thousands": "."}, -1234.5),
    ("1.234", {"decimal": ",", "thousands": "."}, 1234.0),
    ("12 345.5", {"thousands": " "}, 12345.5),
    ("1'000", {"thousands": "'"}, 1000.0),
    ("1,23", {"thousands": ","}, NO_ANSWER),
    ("1,2345", {"thousands": ","}, NO_ANSWER),
    ("1,234", {}, NO_ANSWER),
    ("+.5", {}, 0.5),
    ("+5.E-1", {}, 0.5),
    ("O.L", {}, OVERFLOW),
    ("- OL", {}, OVERFLOW),
    ("OVLD", {}, OVERFLOW),
    ("99999", {"overload": ["99999"]}, OVERFLOW),
    ("9.90000000E+37", {}, OVERFLOW),
    ("-9.9E37", {}, OVERFLOW),
    ("9.91E37", {}, NO_ANSWER),
    ("- ", {}, NO_ANSWER),
    ("+-5", {}, NO_ANSWER),
    ("1 2", {}, NO_ANSWER),
]


@pytest.mark.parametrize(("text", "point", "value"), PRINTED)
def test_numbers_as_instruments_print_them(text, point, value):
    driver = lines(pattern="^(?P<value>.*)$", points={"value": point})
    assert fed(driver, f"{text}\n".encode()) == [{"value": value}]


def test_integers():
    driver = one("integer")
    values = [r["value"] for r in fed(driver, b"12\n-7\n12.0\n12.5\n1e3\n99999999999999999999\n")]
    assert values == [12, -7, 12, NO_ANSWER, 1000, 99999999999999999999]


def test_a_number_that_no_float_can_hold_keeps_its_digits():
    values = [r["value"] for r in fed(one("number"), b"9007199254740993\n-9007199254740993\n1e300\n12\n")]
    assert values == [2**53 + 1, -(2**53) - 1, 1e300, 12.0]
    assert [type(value) for value in values] == [int, int, float, float]


def test_booleans_and_their_words():
    assert [r["value"] for r in fed(one("boolean"), b"on\nOFF\n1\nmaybe\n")] == [True, False, True, NO_ANSWER]
    own = one("boolean", point={"true": "OPEN", "false": "SHUT"})
    assert [r["value"] for r in fed(own, b"open\nshut\non\n")] == [True, False, NO_ANSWER]


def test_scale_offset_and_the_decimal_comma():
    driver = one(point={"scale": 0.1, "offset": -40, "decimal": ","}, separator=";")
    assert fed(driver, b"655,5\n") == [{"value": pytest.approx(25.55)}]


def test_csv():
    driver = lines(format="csv", columns=["a", "", "b"], points={"a": {}, "b": {"type": "string"}})
    assert fed(driver, b'1, x ,hello\n2,x,"y, z"\n3,4\n') == [
        {"a": 1.0, "b": "hello"},
        {"a": 2.0, "b": "y, z"},
    ]
    assert driver._reader.garbage == 1


def test_json():
    points = {
        "t": {"path": "climate.t"},
        "ok": {"type": "boolean"},
        "n": {"type": "integer", "path": "list.1"},
    }
    driver = lines(format="json", points=points)
    assert fed(driver, b'{"climate":{"t":21.5},"ok":true,"list":[1,2]}\n') == [
        {"t": 21.5, "ok": True, "n": 2}
    ]
    assert fed(driver, b'{"climate":{"t":NaN},"ok":null,"list":[1,true]}\n') == [
        {"t": NO_ANSWER, "ok": NO_ANSWER, "n": NO_ANSWER}
    ]
    assert fed(driver, b'{"x":1}\n[1]\nnull\n' + b"[" * 1000 + b"\n{\n") == []
    assert driver._reader.garbage == 5


def test_a_reading_has_what_its_line_holds():
    driver = lines(format="json", points={"a": {}, "b": {}})
    assert driver.present(0.0) is None
    readings = driver.feed(b'{"a":1}\n{"b":2}\n')
    assert next(readings) == {"a": 1.0}
    assert driver.present(0.0) == {"a": 1.0, "b": Flagged(None, Flag.NOT_READY)}, "as of this line"
    assert next(readings) == {"b": 2.0}
    assert driver.present(0.0) == {"a": 1.0, "b": 2.0}
    driver.open()
    assert driver.present(0.0) is None


def test_a_group_that_took_no_part_leaves_its_point_alone():
    """VE.Direct: a block of lines, one value in each."""
    driver = lines(
        pattern=r"^(?:V\t(?P<voltage>-?\d+)|I\t(?P<current>-?\d+)|SOC\t(?P<soc>\d+))$",
        points={"voltage": {"scale": 0.001}, "current": {"scale": 0.001}, "soc": {"scale": 0.1}},
    )
    block = b"\r\nPID\t0x203\r\nV\t26201\r\nI\t-500\r\nSOC\t876\r\n"
    assert fed(driver, block) == [{"voltage": 26.201}, {"current": -0.5}, {"soc": pytest.approx(87.6)}]
    assert driver.present(0.0) == {"voltage": 26.201, "current": -0.5, "soc": pytest.approx(87.6)}


def test_a_hundred_thousand_lines_a_second():
    """The bound is 100 000 a second; a busy machine is allowed to be four times slower here."""
    driver = lines(**SCALE)
    data = b"".join(b"W   %d.5\r\n" % (index % 1000) for index in range(100_000))
    began_s = time.process_time()
    count = sum(len(fed(driver, data[at : at + 4096])) for at in range(0, len(data), 4096))
    assert count == 100_000
    assert time.process_time() - began_s < 4.0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("nan", NO_ANSWER),
        ("-nan", NO_ANSWER),
        ("inf", Flagged(None, Flag.OVERFLOW)),
        ("-INF", Flagged(None, Flag.OVERFLOW)),
        ("ovf", Flagged(None, Flag.OVERFLOW)),
        ("9" * 309, Flagged(None, Flag.OVERFLOW)),
        ("9" * 5000, Flagged(None, Flag.OVERFLOW)),
        ("1e999", Flagged(None, Flag.OVERFLOW)),
        ("[" * 60 + "]" * 60, NO_ANSWER),
        ('"\\ud800"', NO_ANSWER),
        ("12.5", NO_ANSWER),
    ],
)
def test_a_strange_member_costs_its_own_point_only(text, value):
    driver = lines(format="json", points={"a": {"type": "integer"}, "b": {}}, max_line_bytes=8192)
    assert fed(driver, b'{"a": %s, "b": 2, "c": "nan, inf"}\n' % text.encode()) == [{"a": value, "b": 2.0}]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@given(JSON, st.sampled_from(["number", "integer", "boolean", "string"]))
def test_no_document_raises(value, kind):
    driver = lines(format="json", points={"a": {"type": kind}})
    for values in fed(driver, json.dumps({"a": value}).encode() + b"\n"):
        point = values["a"]
        assert isinstance(point, Flagged) or json.dumps(point, ensure_ascii=False).encode()


# --- where a line begins ---------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", range(1, 15))
def test_the_first_line_after_opening_is_not_believed(cut):
    """The port may be opened in the middle of one: 3.45 is no reading of 123.45."""
    driver = lines(format="csv", columns=["a", "b", ""], points={"a": {}, "b": {}})
    driver.open()
    line = b"123.45,67.8,x\r\n"
    assert fed(driver, line[cut:] + line) == [{"a": 123.45, "b": 67.8}]
    assert driver.notes() == {}


def test_a_first_line_after_a_silence_is_whole(monkeypatch):
    """A barcode that is read once a day is not lost."""
    now = [100.0]
    monkeypatch.setattr("device_agent_drivers.lines.monotonic", lambda: now[0])
    driver = one()
    driver.open()
    now[0] += SILENCE_S
    assert fed(driver, b"1") + fed(driver, b"2\n") == [{"value": 12.0}]


def test_a_json_object_proves_itself():
    driver = lines(format="json", points={"a": {}})
    driver.open()
    assert fed(driver, b'{"a": 1}\n') == [{"a": 1.0}]


# --- telegrams with a checksum ---------------------------------------------------------------------------

SEALED = {
    "nmea": r"^\$T=(?P<value>.*)$",
    "ve-direct": r"^T=(?P<value>.*)$",
    "p1": r"^T=(?P<value>.*)$",
    "iec-62056-21": r"^T=(?P<value>.*)$",
    "lrc": r"^:0103(?P<value>[0-9]{4})",
}


def sealed(checksum, value):
    body = f"0103{value}" if checksum == "lrc" else f"T={value}"
    return SEALS[checksum](body.encode())


def checked(checksum):
    return lines(pattern=SEALED[checksum], checksum=checksum, points={"value": {}})


@pytest.mark.parametrize("checksum", SEALED)
def test_a_damaged_telegram_gives_nothing(checksum):
    good, other = sealed(checksum, 1234), sealed(checksum, 5678)
    for at in range(len(good)):
        for change in (0x01, 0x10, 0x80):
            driver = checked(checksum)
            driver.open()
            assert fed(driver, sealed(checksum, 9999)) == [{"value": 9999.0}], "whole from the first on"
            hurt = bytearray(good)
            hurt[at] ^= change
            values = [values["value"] for values in fed(driver, bytes(hurt) + other + other)]
            assert set(values) <= {1234.0, 5678.0}
            assert values[-1] == 5678.0


@pytest.mark.parametrize("checksum", SEALED)
def test_telegrams_in_pieces_after_a_beginning_that_was_missed(checksum):
    data = sealed(checksum, 1111)[5:] + sealed(checksum, 1234) + sealed(checksum, 5678)
    driver = checked(checksum)
    driver.open()
    pieces = [data[at : at + 1] for at in range(len(data))]
    assert [r["value"] for piece in pieces for r in fed(driver, piece)] == [1234.0, 5678.0]
    assert driver.notes() == {}


def test_the_values_of_a_telegram_come_together():
    driver = lines(
        pattern=r"^V\t(?P<voltage>-?\d+)$|^I\t(?P<current>-?\d+)$",
        checksum="ve-direct",
        points={"voltage": {"scale": 0.001}, "current": {"scale": 0.001}},
    )
    driver.open()
    block = SEALS["ve-direct"](b"PID\t0x203\r\nV\t26201\r\nI\t-500")
    assert (
        fed(driver, block + block[:9] + b":A0002000148\n" + block[9:])
        == [{"voltage": 26.201, "current": -0.5}] * 2
    )
    hurt = block.replace(b"26201", b"26301")
    assert fed(driver, hurt) == []
    assert driver.notes() == {"wrong_checksums": 1}


@given(st.lists(st.binary(max_size=200), max_size=20), st.sampled_from([*SEALED]))
def test_noise_is_no_telegram_for_long(chunks, checksum):
    driver = checked(checksum)
    for chunk in chunks:
        fed(driver, chunk)
    fed(driver, b"\x02/ABC5:$" * 5000)
    assert len(driver._reader._telegrams._rest) <= TELEGRAMS[checksum].most


# --- commands --------------------------------------------------------------------------------------------


def commanding(command, **points) -> SerialLines:
    points = {name: {"write": True, **options} for name, options in points.items()}
    return lines(format="json", command=command, points=points)


def test_one_command_for_several_points_keeps_the_others():
    driver = commanding("SET {a:.1f} {b}\r\n", a={"safe": 1}, b={"safe": 2})
    driver.open()
    driver.write({"a": 5})
    driver.write({"b": 7.5})
    assert driver.bus.sent[1:] == [b"SET 1.0 2\r\n", b"SET 5.0 2\r\n", b"SET 5.0 7.5\r\n"]


def test_a_command_each():
    driver = commanding({"a": "A{a}\n", "b": "B{b}\n"}, a={"safe": 1}, b={"type": "boolean", "safe": False})
    driver.write({"b": True})
    driver.write({"a": 3.0})
    assert driver.bus.sent == [b"B1\n", b"A3\n"]


def test_scale_is_turned_round_for_commands():
    driver = commanding("T{t}\n", t={"safe": 20, "scale": 0.1, "offset": 5})
    driver.write({"t": 20.3})
    assert driver.bus.sent == [b"T153\n"]


def test_a_text_cannot_smuggle_a_second_command():
    driver = commanding("NAME {name}\n", name={"type": "string", "safe": "x"})
    for text, sign in (("a;HEAT 1", ";"), ("a,b", ",")):
        driver = commanding("NAME {name},1\n", name={"type": "string", "safe": "x"})
        with pytest.raises(DriverError, match=f"holds '{sign}' and would be more than its value"):
            driver.write({"name": text})
    driver = commanding("NAME {name}\n", name={"type": "string", "safe": "x"})
    with pytest.raises(DriverError, match="second command"):
        driver.write({"name": "a\nRESET"})
    with pytest.raises(DriverError, match="cannot be sent"):
        lines(**{**SCALE, "command": "SP {setpoint:q}\n"}).write({"setpoint": 1})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pattern": None}, "needs a `pattern`"),
        ({"pattern": "("}, "no regular expression"),
        ({"pattern": "abc"}, "no named group"),
        ({"pattern": "(?P<mass>.)"}, "names mass"),
        ({"format": "csv"}, "needs `columns`"),
        ({"format": "csv", "columns": ["weight", "mass"]}, "names mass"),
        ({"command": "SP {weight}"}, "weight, which is not a writable point"),
        ({"command": None}, "no `command` says how setpoint"),
        ({"command": "SP {setpoint.__class__}"}, "no point's name"),
        ({"command": "SP {}"}, "no point's name"),
        ({"command": "SP {setpoint"}, "braces"),
        ({"command": "SP"}, "names no point"),
        ({"points": {**SCALE["points"], "setpoint": {"write": True}}}, "needs a `safe` value"),
        ({"points": {**SCALE["points"], "setpoint": {"write": True, "safe": "low"}}}, "is no number"),
        ({"points": {**SCALE["points"], "setpoint": {"write": True, "safe": 9, "maximum": 5}}}, "outside"),
        ({"points": {**SCALE["points"], "weight": {"scale": 0}}}, "must not be 0"),
        ({"points": {**SCALE["points"], "Weight": {}}}, "pattern"),
        ({"points": {}}, "points"),
    ],
)
def test_mistakes_in_the_configuration_are_named(change, message):
    with pytest.raises(ValidationError, match=message):
        SerialLinesConfig.model_validate({**SCALE, **change})


def test_safe_may_stand_at_the_device():
    points = {"setpoint": {"write": True}, "weight": {}}
    config = SerialLinesConfig.model_validate({**SCALE, "points": points, "safe": {"setpoint": 3}})
    assert SerialLines.safe_of(config) == {"setpoint": 3}


@pytest.mark.parametrize(
    ("pattern", "line"),
    [
        (r"^W +(?P<weight>-?[0-9.]+)", "W 5"),
        (r"(?:net|gross)\s*[:=]\s*(?P<weight>\d+)(?: g)?", "net:5"),
        (r"^\$[A-Z]{3},\d+,(?P<weight>[^,]+),", "$AAA,0,5,"),
    ],
)
def test_the_simulator_speaks_the_configured_pattern(pattern, line):
    config = SerialLinesConfig.model_validate({"pattern": pattern, "points": {"weight": {}}})
    chip = SerialLines.simulator(config)
    chip.set("weight", 5.0)
    assert chip.outgoing().decode().strip() == line
    assert math.isclose(fed(SerialLines(config, None), (line + "\n").encode())[0]["weight"], 5.0)  # type: ignore[arg-type]


# --- a far end that resets when the port opens -----------------------------------------------------------


class Arduino:
    """A port whose far end is reset by opening it: it hears nothing until it says that it is ready.

    Time is its own: each wait for bytes takes as long as it may, unless there are some.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, boots_s: float, answers: str = "") -> None:
        self.now_s = 0.0
        self.boots_s = boots_s
        self.answers = answers
        self.did: list[bytes] = []
        self.lost: list[bytes] = []
        self.said = b"T=9"  # of before its reset
        self.booted = False
        for module in ("serial_lines", "lines", "far_end"):
            monkeypatch.setattr(f"device_agent_drivers.{module}.monotonic", lambda: self.now_s)

    def write(self, data: bytes) -> None:
        if not self.booted:
            self.lost.append(data)
            return
        self.did.append(data)
        if self.answers:
            self.said += self.answers.format(data.decode().split()[-1]).encode()

    def read(self, size: int, timeout_s: float) -> bytes:
        if not self.said:
            boots_in_s = self.boots_s - self.now_s
            self.now_s += min(timeout_s, boots_in_s) if boots_in_s > 0 else timeout_s
        if not self.booted and self.now_s >= self.boots_s:
            self.booted = True
            self.said += b"\0\xffhello, ready\r\n"
        data, self.said = self.said[:size], self.said[size:]
        return data

    def discard_input(self) -> None:
        pass

    def listen(self) -> None:
        pass


LAMP = {
    "pattern": "^T=(?P<t>[0-9]+)$",
    "command": "LAMP {lamp}\n",
    "points": {"t": {}, "lamp": {"type": "integer", "write": True, "safe": 0}},
}


def on_arduino(port, **options) -> SerialLines:
    return SerialLines(SerialLinesConfig.model_validate({**LAMP, **options}), port)


def test_nothing_is_sent_before_the_far_end_is_ready(monkeypatch):
    port = Arduino(monkeypatch, boots_s=1.8)
    on_arduino(port, ready_line="ready").open()
    assert (port.lost, port.did) == ([], [b"LAMP 0\n"])
    port = Arduino(monkeypatch, boots_s=1.8)
    on_arduino(port, open_delay_s=2.5).open()
    assert (port.lost, port.did) == ([], [b"LAMP 0\n"])


def test_one_that_never_gets_ready_is_not_online(monkeypatch):
    port = Arduino(monkeypatch, boots_s=100)
    with pytest.raises(NoAnswer, match="nothing like `ready_line` 'ready' came within 8 s"):
        on_arduino(port, ready_line="ready").open()
    assert (port.lost, port.did) == ([], [])


def test_one_that_was_not_reset_is_ready_when_it_is_understood(monkeypatch):
    """It began long ago; what came at once may still be from before a reset."""
    port = Arduino(monkeypatch, boots_s=100)
    port.booted = True
    heard = iter([b"\nT=1\n", b"", b"", b"T=2\n"])
    monkeypatch.setattr(port, "read", lambda size, timeout_s: _later(port, next(heard)) if size == 1 else b"")
    on_arduino(port, ready_line="ready").open()
    assert port.did == [b"LAMP 0\n"]
    assert next(heard, None) is None, "it waited for what came after the time of a reset"


def _later(port: Arduino, data: bytes) -> bytes:
    port.now_s += 1.0
    return data


def test_a_far_end_that_is_reset_later_is_opened_again(monkeypatch):
    port = Arduino(monkeypatch, boots_s=1.0)
    driver = on_arduino(port, ready_line="ready")
    driver.open()
    driver.listen()
    with pytest.raises(ChipReset, match="what was set is lost"):
        fed(driver, b"T=5\nready\n")
    driver.open()
    assert port.did == [b"LAMP 0\n"] * 2, "without waiting for another one"


@pytest.mark.parametrize(
    ("answers", "confirmed"),
    [("OK {}\n", {"lamp": 1}), ("OK 0\nOK {}\n", {"lamp": 1}), ("OK 7\n", {"lamp": 7})],
)
def test_what_the_far_end_confirms(monkeypatch, answers, confirmed):
    port = Arduino(monkeypatch, boots_s=0.0, answers="OK 0\n")
    driver = on_arduino(port, open_delay_s=1, confirm="^OK (?P<lamp>[0-9]+)")
    driver.open()
    port.answers = answers
    assert driver.write({"lamp": 1}) == confirmed
    assert SerialLines.confirms(driver.config)
    port.answers = ""
    with pytest.raises(BusTimeout, match="nothing like `confirm` came: it may have happened"):
        driver.write({"lamp": 0})


def test_without_an_answer_nothing_is_confirmed():
    assert not SerialLines.confirms(lines(**SCALE).config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ready_line": "("}, "`ready_line` is no regular expression"),
        ({"confirm": "^OK (?P<t>.)"}, "`confirm` names t, which is not a writable point"),
    ],
)
def test_mistakes_about_answers(change, message):
    with pytest.raises(ValidationError, match=message):
        SerialLinesConfig.model_validate({**LAMP, **change})
