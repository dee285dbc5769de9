"""Modbus RTU: frames by the standard, words, types, joins, faults on the line, writes that happen once."""

import contextlib
import math
import random
import struct

import pytest

from device_agent.driver import BadReading, DriverError, Flag, Flagged, NoAnswer
from device_agent.errors import BusGone, BusTimeout
from device_agent.testing import check_driver
from device_agent_drivers.checksums import crc16_modbus
from device_agent_drivers.modbus import LATE_FIRST_S, OWED_MAX, Master, ModbusException, framed
from device_agent_drivers.modbus_points import NO_ANSWER, ModbusPoint, blocks_of
from device_agent_drivers.modbus_rtu import ModbusRtu, ModbusRtuConfig
from support.scripted_line import ScriptedLine, SlowFarEnd

APPROX = pytest.approx(230.2)
METER = {
    "voltage": {"kind": "input", "address": 0, "type": "float32", "unit": "V"},
    "current": {"kind": "input", "address": 2, "type": "uint16", "scale": 0.01, "unit": "A"},
    "energy": {"kind": "input", "address": 70, "type": "uint32", "unit": "W.h", "word_order": "little"},
    "alarm": {"kind": "discrete", "address": 9},
}
DRIVE = {
    "speed": {"address": 100, "type": "int16", "scale": 0.1, "offset": 5, "unit": "Hz", "write": True,
              "minimum": 0, "maximum": 60, "safe": 0},
    "ramp": {"address": 101, "type": "uint32", "unit": "ms", "write": True, "safe": 1000,
             "minimum": 0, "maximum": 90000},
    "run": {"kind": "coil", "address": 3, "write": True, "safe": False},
    "reverse": {"kind": "coil", "address": 4, "write": True, "safe": False},
    "fault": {"address": 7, "type": "bool", "bit": 5},
    "ready": {"address": 7, "type": "bool", "bit": 0},
}  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        {"points": METER},
        {"points": DRIVE, "unit": 17},
        {"points": DRIVE, "write_multiple": True, "word_order": "little"},
    ],
)
def test_contract(options):
    check_driver(ModbusRtu, options)


def asked(line: ScriptedLine, **options) -> Master:
    options = {"timeout_s": 0.3, "gap_s": 0.005, "echo": False, "sleep": lambda seconds: None, **options}
    return Master(line, 0x11, **options)  # type: ignore[arg-type]


def driver(line: ScriptedLine, points: dict, **options) -> ModbusRtu:
    config = ModbusRtuConfig.model_validate({"points": points, "unit": 0x11, **options})
    return ModbusRtu(config, line, lambda seconds: None)  # type: ignore[arg-type]


# --- frames ----------------------------------------------------------------------------------------------


def test_checksum():
    assert framed(bytes.fromhex("0207")) == bytes.fromhex("0207 4112")  # serial line guide, 6.2.2
    assert framed(bytes.fromhex("1103006B0003")) == bytes.fromhex("1103006B0003 7687")
    assert crc16_modbus(framed(b"anything")) == 0


def test_reading_registers_by_the_standard():
    line = ScriptedLine(framed(bytes.fromhex("1103 06 022B 0000 0064")))
    assert asked(line).read(3, 0x6B, 3) == bytes.fromhex("022B00000064")
    assert line.sent == [bytes.fromhex("1103006B00037687")]
    assert line.discarded == 1


def test_reading_coils_by_the_standard():
    line = ScriptedLine(framed(bytes.fromhex("1101 05 CD6BB20E1B")))
    assert asked(line).read(1, 0x13, 0x25) == bytes.fromhex("CD6BB20E1B")
    assert line.sent == [framed(bytes.fromhex("110100130025"))]


@pytest.mark.parametrize(
    ("write", "question", "answer"),
    [
        (lambda m: m.write_coil(0xAC, True), "1105 00AC FF00", "1105 00AC FF00"),
        (lambda m: m.write_coil(0xAC, False), "1105 00AC 0000", "1105 00AC 0000"),
        (lambda m: m.write_register(1, 3), "1106 0001 0003", "1106 0001 0003"),
        (
            lambda m: m.write_coils(0x13, [bool(0x1CD >> n & 1) for n in range(10)]),
            "110F 0013 000A 02 CD01",
            "110F 0013 000A",
        ),
        (lambda m: m.write_registers(1, b"\0\x0a\x01\x02"), "1110 0001 0002 04 000A0102", "1110 0001 0002"),
    ],
)
def test_writing_by_the_standard(write, question, answer):
    line = ScriptedLine(framed(bytes.fromhex(answer)))
    write(asked(line))
    assert line.sent == [framed(bytes.fromhex(question))]


@pytest.mark.parametrize(
    ("code", "words"), [(2, "illegal data address"), (6, "device busy"), (99, "exception")]
)
def test_a_refusal_is_told(code, words):
    with pytest.raises(ModbusException, match=rf"unit 17 refuses function 3 at address 107: {words}.*{code}"):
        asked(ScriptedLine(framed(bytes((0x11, 0x83, code))))).read(3, 107, 1)


@pytest.mark.parametrize(
    "answer",
    [
        framed(bytes.fromhex("1103 02 1234"))[:-1] + b"\0",  # checksum
        framed(bytes.fromhex("1203 02 1234")),  # another unit
        framed(bytes.fromhex("1104 02 1234")),  # another function
        framed(bytes.fromhex("1103 04 12345678")),  # a late answer to another question
        framed(bytes.fromhex("1103 02 1234"))[:5],  # torn
        framed(bytes.fromhex("1103 02 1234"))[1:],
        b"\x11",
    ],
)
def test_what_is_no_answer(answer):
    with pytest.raises(BadReading, match="unit 17"):
        asked(ScriptedLine(answer)).read(3, 0, 1)


@pytest.mark.parametrize("before", ["00", "ff", "0011", "11 03 02", "110302000011", "00" * 60])
@pytest.mark.parametrize("after", ["", "00"])
def test_stray_bytes_around_an_answer(before, after):
    """As an adapter sends that switches its direction: `00 01 03 02 6d 60 94 fc`."""
    good = framed(bytes.fromhex("1103 02 1234"))
    line = ScriptedLine(bytes.fromhex(before) + good + bytes.fromhex(after))
    assert asked(line).read(3, 0, 1) == b"\x12\x34"
    with pytest.raises(ModbusException, match="device busy"):
        asked(ScriptedLine(bytes.fromhex(before) + framed(bytes.fromhex("1183 06")))).read(3, 0, 1)


def test_silence_is_no_answer():
    with pytest.raises(NoAnswer, match=r"within 0.3 s"):
        asked(ScriptedLine()).read(3, 0, 1)


def test_an_adapter_that_echoes():
    question, answer = framed(bytes.fromhex("1103 0200 0002")), framed(bytes.fromhex("1103 04 00010002"))
    assert asked(ScriptedLine(question + answer), echo=True).read(3, 0x200, 2) == b"\0\x01\0\x02"
    with pytest.raises(BadReading, match="echo = true"):
        asked(ScriptedLine(question + answer)).read(3, 0x200, 2)
    with pytest.raises(BadReading, match="is `echo` right"):
        asked(ScriptedLine(answer), echo=True).read(3, 0x200, 2)


def test_an_answer_that_looks_like_the_question():
    """One register at 0x0200 that holds 0 begins just as the question did."""
    assert asked(ScriptedLine(framed(bytes.fromhex("1103 02 0000")))).read(3, 0x200, 1) == b"\0\0"


def slow_unit(takes_s: float, registers: dict[int, int]) -> SlowFarEnd:
    """It works off all that it was asked."""

    def answer(question: bytes) -> bytes:
        value = registers[int.from_bytes(question[2:4], "big")]
        return framed(bytes((0x11, question[1], 2)) + value.to_bytes(2, "big"))

    return SlowFarEnd(takes_s, answer)


@pytest.mark.parametrize("takes_s", [0.01, 0.25, 0.35, 0.5, 0.59])
def test_a_late_answer_is_never_another_questions(takes_s):
    """Voltage 230 and frequency 50, of a unit that works off all that it was asked."""
    line = slow_unit(takes_s, {0: 230, 10: 50})
    device = driver(line, {"voltage": {"address": 0}, "frequency": {"address": 10}})
    for _ in range(20):
        assert device.read() == {"voltage": 230, "frequency": 50}


@pytest.mark.parametrize("takes_s", [0.61, 0.65, 0.9, 1.1, 1.5, 2.2, 4.0])
def test_a_unit_that_is_slower_than_both_tries_gives_no_value(takes_s, monkeypatch):
    line = slow_unit(takes_s, {0: 230, 10: 50})
    monkeypatch.setattr("device_agent_drivers.modbus.time.monotonic", lambda: line.now_s)
    device = driver(line, {"voltage": {"address": 0}, "frequency": {"address": 10}})
    for _ in range(50):
        with contextlib.suppress(NoAnswer):
            values = device.read()
            assert values["voltage"] in (230, NO_ANSWER)
            assert values["frequency"] in (50, NO_ANSWER)
        line.now_s += 0.5
    assert device.notes()["late_answers"] > 0


class AwayUnit(SlowFarEnd):
    """Off for a minute; then it takes writes and answers reads in time."""

    def write(self, data: bytes) -> None:
        if self.now_s < 60:
            self.sent.append(data)
        elif data[1] == 6:
            self.sent.append(data)
            self.due.append((self.now_s + self.takes_s, data))
        else:
            super().write(data)


def test_a_unit_that_was_away_is_read_again_soon(monkeypatch):
    """What it was asked long ago is not owed, though each opening writes its safe values before it reads."""
    line = AwayUnit(0.02, slow_unit(0.02, {0: 230, 10: 5}).answer)
    monkeypatch.setattr("device_agent_drivers.modbus.time.monotonic", lambda: line.now_s)
    device = driver(line, {"voltage": {"address": 0}, "level": {"address": 10, "write": True, "safe": 5}})
    while True:
        with contextlib.suppress(NoAnswer, BusTimeout):
            device.open()
            assert device.read() == {"voltage": 230, "level": 5}
            break
        with contextlib.suppress(NoAnswer, BusTimeout):
            device.safe()
        line.now_s += 0.5
        assert line.now_s < 60 + OWED_MAX * LATE_FIRST_S + 5
    assert line.now_s > 60


def test_a_unit_that_is_slow_at_times_gives_no_wrong_value():
    line = slow_unit(0.02, {0: 230, 10: 50})
    device = driver(line, {"voltage": {"address": 0}, "frequency": {"address": 10}})
    chance = random.Random(4)
    for _ in range(300):
        line.takes_s = chance.choice([0.02, 0.02, 0.02, 0.35, 0.5])
        with contextlib.suppress(NoAnswer):
            values = device.read()
            assert values["voltage"] in (230, NO_ANSWER)
            assert values["frequency"] in (50, NO_ANSWER)


class Baud1200(ScriptedLine):
    baud = 1200


def test_one_transaction_does_not_hold_a_slow_line_for_long():
    """A stop waits for at most one: 125 registers take 2.4 s at 1200 baud, and are read in three."""
    points = {f"p{n}": {"address": n} for n in range(125)}
    line = Baud1200()
    with pytest.raises(NoAnswer):
        driver(line, points).read()
    assert int.from_bytes(line.sent[0][4:6], "big") == 48
    config = ModbusRtuConfig(points=points)
    assert ModbusRtu.reading_s(config, Baud1200()) == pytest.approx(3 * 0.005 + (250 + 39) * 11 / 1200)
    assert ModbusRtu.reading_s(config, ScriptedLine()) == pytest.approx(0.005 + (250 + 13) * 11 / 9600)


class Baud110(ScriptedLine):
    baud = 110


def test_points_share_no_transaction_where_each_takes_long():
    line = Baud110()
    with pytest.raises(NoAnswer):
        driver(line, {f"p{n}": {"address": n} for n in range(4)}).read()
    assert int.from_bytes(line.sent[0][4:6], "big") == 1


# --- words -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "data", "expected"),
    [
        ({"type": "uint16"}, "FFFE", 65534),
        ({"type": "int16"}, "FFFE", -2),
        ({"type": "uint32"}, "0001 0002", 65538),
        ({"type": "uint32", "word_order": "little"}, "0002 0001", 65538),
        ({"type": "int32"}, "FFFF FFFE", -2),
        ({"type": "uint64"}, "0000 0000 0001 0002", 65538),
        ({"type": "int64", "word_order": "little"}, "FFFE FFFF FFFF FFFF", -2),
        ({"type": "float32"}, "4366 3333", pytest.approx(230.2)),
        ({"type": "float32", "word_order": "little"}, "3333 4366", pytest.approx(230.2)),
        ({"type": "float64"}, "406C C666 6666 6666", pytest.approx(230.2)),
        ({"type": "int16", "scale": 0.1}, "FF38", -20.0),
        ({"type": "uint16", "scale": 0.1}, "08FD", 230.1),
        ({"type": "uint16", "scale": 2, "offset": -40}, "001E", 20.0),
        ({"type": "bool"}, "0100", True),
        ({"type": "bool", "bit": 5}, "0020", True),
        ({"type": "bool", "bit": 5}, "FFDF", False),
        ({"type": "float32"}, "7FC0 0000", Flagged(None, Flag.NO_ANSWER)),
        ({"type": "float32"}, "7F80 0000", Flagged(None, Flag.OVERFLOW)),
        ({"type": "int16", "nothing": -32768}, "8000", Flagged(None, Flag.NO_ANSWER)),
        ({"type": "float32", "byte_order": "little"}, "6643 3333", pytest.approx(230.2)),  # BADC
        ({"type": "float32", "byte_order": "little", "word_order": "little"}, "3333 6643", APPROX),  # DCBA
        ({"type": "uint64"}, "0020 0000 0000 0001", 2**53 + 1),
        ({"type": "int16", "sign_magnitude": True}, "8005", -5),
        ({"type": "int16", "sign_magnitude": True}, "7FFF", 32767),
        ({"type": "int32", "sign_magnitude": True, "scale": 0.1}, "8000 0005", -0.5),
        ({"type": "bool", "on": 0x0100, "off": 0x0200}, "0100", True),
        ({"type": "bool", "on": 0x0100, "off": 0x0200}, "0200", False),
        ({"type": "bool", "on": 0x0100, "off": 0x0200}, "0300", Flagged(None, Flag.NO_ANSWER)),
        ({"type": "string", "length": 4}, "5344 4D31 3230 0000", "SDM120"),
        ({"type": "string", "length": 2}, "FF44 4D31", Flagged(None, Flag.CHECKSUM)),
        ({"type": "uint32", "nothing": 0xFFFFFFFF}, "FFFF FFFF", Flagged(None, Flag.NO_ANSWER)),
    ],
)
def test_words_to_values(options, data, expected):
    point = ModbusPoint(address=0, **options)
    value = point.decode(bytes.fromhex(data), "big")
    assert value == expected
    if not isinstance(value, Flagged | bool):
        assert point.encode(value, "big") == bytes.fromhex(data)


@pytest.mark.parametrize(("mask", "expected"), [(0xFF00, 0x12), (0x00FF, 0x34), (0x0F00, 2), (0x8000, 0)])
def test_two_values_in_one_register(mask, expected):
    assert ModbusPoint(address=0, mask=mask).decode(b"\x12\x34", "big") == expected


@pytest.mark.parametrize(("mask", "expected"), [(0xFF00, -2), (0x00FF, 0x34), (0x0FF0, -0x1D), (0xF000, -1)])
def test_two_signed_values_in_one_register(mask, expected):
    assert ModbusPoint(address=0, type="int16", mask=mask).decode(b"\xfe\x34", "big") == expected


def test_codes_for_on_and_off_and_large_numbers_go_out_whole():
    point = ModbusPoint(address=0, type="bool", on=0x0100, off=0x0200)
    assert (point.encode(True, "big"), point.encode(False, "big")) == (b"\1\0", b"\2\0")
    assert ModbusPoint(address=0, type="uint64").encode(2**53 + 1, "big") == (2**53 + 1).to_bytes(8, "big")
    with pytest.raises(DriverError, match="4 ASCII characters"):
        ModbusPoint(address=0, type="string", length=2).encode("12345", "big")


def test_the_devices_word_order_is_overruled_by_the_points():
    data = bytes.fromhex("0001 0002")
    assert ModbusPoint(address=0, type="uint32").decode(data, "little") == 0x20001
    assert ModbusPoint(address=0, type="uint32", word_order="big").decode(data, "little") == 0x10002


def test_what_does_not_fit_is_not_cut_off():
    for options, value in (({}, 70000), ({"type": "int16"}, -40000), ({"type": "uint16"}, math.nan)):
        with pytest.raises(DriverError, match="does not fit"):
            ModbusPoint(address=3, **options).encode(value, "big")


# --- joins -----------------------------------------------------------------------------------------------


def test_only_adjacent_registers_join():
    points = {
        "a": ModbusPoint(address=10, type="uint32"),
        "b": ModbusPoint(address=12),
        "c": ModbusPoint(address=14),  # 13 may not exist
        "d": ModbusPoint(address=14, type="bool", bit=1),
        "e": ModbusPoint(kind="input", address=15),
        "f": ModbusPoint(kind="coil", address=15),
    }
    blocks = [(b.function, b.address, b.count, list(b.points)) for b in blocks_of(points, points)]
    assert blocks == [(1, 15, 1, ["f"]), (3, 10, 3, ["a", "b"]), (3, 14, 1, ["c", "d"]), (4, 15, 1, ["e"])]


def test_a_read_is_never_longer_than_the_standard_allows():
    points = {f"p{n}": ModbusPoint(address=2 * n, type="float32") for n in range(128)}
    blocks = blocks_of(points, points)
    assert [(b.address, b.count) for b in blocks] == [(0, 124), (124, 124), (248, 8)]


# --- the whole -------------------------------------------------------------------------------------------


def test_a_meter(bench):
    it = bench(ModbusRtu, "meter", points=METER)
    it.board.set("it", voltage=230.25, current=3.21, energy=123456, alarm=True)
    it.driver.open()
    assert it.measure() == {"voltage": 230.25, "current": 3.21, "energy": 123456, "alarm": True}
    words = it.board.chip("it").tables["input"]
    assert (words[70], words[71]) == (123456 & 0xFFFF, 123456 >> 16)
    asked = [(r[1], *struct.unpack(">HH", r[2:6])) for r in it.board.chip("it").requests]
    assert asked == [(2, 9, 1), (4, 0, 3), (4, 70, 2)]


@pytest.mark.parametrize("multiple", [False, True])
def test_a_drive(bench, multiple):
    it = bench(ModbusRtu, "meter", points=DRIVE, write_multiple=multiple)
    it.driver.open()
    chip = it.board.chip("it")
    assert chip.tables["coil"] == {3: 0, 4: 0}
    assert chip.tables["holding"][100] == 0x10000 - 50  # (0 - 5) / 0.1
    values = {"speed": 42.5, "ramp": 70000, "run": True, "reverse": True}
    assert it.driver.write(values) == values
    functions = {request[1] for request in chip.requests}
    assert functions & {5, 6, 15, 16} == ({15, 16} if multiple else {5, 6, 16})
    assert it.measure() == {**values, "fault": False, "ready": False}
    it.driver.safe()
    assert chip.outputs() == {"speed": 0.0, "ramp": 1000, "run": False, "reverse": False}


def test_a_read_is_tried_twice(bench):
    good = framed(bytes.fromhex("1103 02 0007"))
    line = ScriptedLine(b"", good)
    assert driver(line, {"a": {"address": 0}}).read() == {"a": 7}
    assert len(line.sent) == 2
    line = ScriptedLine(b"", b"", good)
    with pytest.raises(NoAnswer):
        driver(line, {"a": {"address": 0}}).read()
    assert len(line.sent) == 2


@pytest.mark.parametrize("answer", [b"", framed(bytes.fromhex("1106 0000 0005"))[:-1] + b"\0"])
def test_a_write_is_tried_once_and_its_outcome_is_unknown(answer):
    line = ScriptedLine(answer, framed(bytes.fromhex("1106 0000 0005")))
    device = driver(line, {"a": {"address": 0, "write": True, "safe": 0}})
    with pytest.raises(BusTimeout, match="may have happened"):
        device.write({"a": 5})
    assert len(line.sent) == 1


def test_a_write_that_is_refused(bench):
    device = driver(
        ScriptedLine(framed(bytes.fromhex("1186 03"))), {"a": {"address": 0, "write": True, "safe": 0}}
    )
    with pytest.raises(ModbusException, match="illegal data value"):
        device.write({"a": 5})


def test_what_one_block_refuses_does_not_cost_the_others():
    points = {"a": {"address": 0}, "b": {"address": 5}, "c": {"address": 9}}
    line = ScriptedLine(
        framed(bytes.fromhex("1103 02 0001")),
        framed(bytes.fromhex("1183 02")),
        framed(bytes.fromhex("1103 02 0003")),
    )
    expected = {"a": 1, "b": Flagged(None, Flag.REFUSED), "c": 3}
    device = driver(line, points)
    assert device.read() == expected
    assert device.notes() == {
        "refused b": "unit 17 refuses function 3 at address 5: illegal data address (2)"
    }
    garbled = [framed(bytes.fromhex("1103 02 0001")), b"\x11\x03\x02\0\0\0\0", b"\x11\x03\x02\0\0\0\0"]
    line = ScriptedLine(*garbled, framed(bytes.fromhex("1103 02 0003")))
    assert driver(line, points).read() == {**expected, "b": Flagged(None, Flag.CHECKSUM)}


class Registers(ScriptedLine):
    """A unit with these holding registers; `longest` is the most that it gives at once."""

    def __init__(self, registers: dict[int, int], *, longest: int = 125, kind: int = 3) -> None:
        super().__init__()
        self.registers, self.longest, self.kind = registers, longest, kind
        self.asked: list[tuple[int, int]] = []

    def write(self, data: bytes) -> None:
        function, address, count = struct.unpack(">BHH", data[1:6])
        self.asked.append((address, count))
        wanted = range(address, address + count)
        if function != self.kind or count > self.longest or not all(at in self.registers for at in wanted):
            self.input += framed(bytes((0x11, function | 0x80, 2)))
            return
        words = b"".join(self.registers[at].to_bytes(2, "big") for at in wanted)
        self.input += framed(bytes((0x11, function, len(words))) + words)


def test_a_unit_that_refuses_long_reads_is_read_in_parts_from_then_on():
    points = {f"p{n}": {"address": n} for n in range(100)}
    line = Registers({n: n for n in range(100)}, longest=50)
    device = driver(line, points)
    wanted = {f"p{n}": n for n in range(100)}
    assert device.read() == wanted
    assert line.asked == [(0, 100), (0, 50), (50, 50)]
    line.asked.clear()
    assert (device.read(), line.asked) == (wanted, [(0, 50), (50, 50)])
    line.asked.clear()
    assert driver(line, points, max_registers=30).read() == wanted
    assert line.asked == [(0, 30), (30, 30), (60, 30), (90, 10)]


def test_a_register_that_is_not_there_costs_its_neighbours_nothing():
    line = Registers({n: n for n in range(8) if n != 3})
    device = driver(line, {f"p{n}": {"address": n} for n in range(8)})
    wanted = {f"p{n}": n if n != 3 else Flagged(None, Flag.REFUSED) for n in range(8)}
    assert device.read() == wanted
    assert list(device.notes()) == ["refused p3"]
    line.asked.clear()
    assert device.read() == wanted
    assert sorted(line.asked) == [(0, 2), (2, 1), (3, 1), (4, 4)]


def test_a_port_that_is_unplugged_in_a_reading_is_read_whole_when_it_is_back():
    line = Registers({0: 1, 5: 2})
    device = driver(line, {"a": {"address": 0}, "b": {"address": 5}})
    write, line.write = line.write, unplugged
    with pytest.raises(BusGone):
        device.read()
    line.write = write
    assert device.read() == {"a": 1, "b": 2}


def unplugged(data: bytes) -> None:
    raise BusGone("the port was unplugged")


def test_a_unit_that_refuses_everything_is_not_online():
    with pytest.raises(ModbusException, match="illegal data address"):
        driver(Registers({}), {"a": {"address": 0}, "b": {"address": 5}}).read()


def test_a_gap_that_may_be_read_saves_a_question():
    line = Registers({n: n for n in range(20)})
    points = {"a": {"address": 0}, "b": {"address": 4}, "c": {"address": 12}}
    assert driver(line, points, max_gap=3).read() == {"a": 0, "b": 4, "c": 12}
    assert line.asked == [(0, 5), (12, 1)]


def test_a_power_of_ten_in_a_register_of_its_own():
    """As SunSpec has it: 0x8000 where it does not apply."""
    points = {
        "power": {"address": 0, "type": "int16", "exponent": 1, "unit": "W"},
        "current": {"address": 2, "exponent": 3, "unit": "A"},
    }
    line = Registers({0: 0xFF38, 1: 0xFFFF, 2: 1234, 3: 0x8000})
    assert driver(line, points).read() == {"power": -20.0, "current": NO_ANSWER}


class RelayBoard(Registers):
    """Takes the codes 0x0100 and 0x0200 in register 1 and shows its relay in register 10."""

    def write(self, data: bytes) -> None:
        if data[1] != 6:
            return super().write(data)
        self.registers[10] = int(data[4:6] == b"\1\0")
        self.input += data
        return None


def test_a_relay_with_codes_of_its_own_whose_state_is_elsewhere():
    points = {
        "relay": {"address": 1, "type": "bool", "write": True, "safe": False, "on": 256, "off": 512,
                  "state": "relay_state"},
        "relay_state": {"address": 10, "type": "bool"},
    }  # fmt: skip
    device = driver(RelayBoard({10: 0}), points)
    device.open()
    assert device.write({"relay": True}) == {"relay": True}
    assert device.read() == {"relay": True, "relay_state": True}
    device.safe()
    assert device.read() == {"relay": False, "relay_state": False}


class AllCoils(ScriptedLine):
    """Gives its eight coils only all at once."""

    coils = 0

    def write(self, data: bytes) -> None:
        function, address, count = struct.unpack(">BHH", data[1:6])
        if function == 5:
            self.coils = self.coils & ~(1 << address) | bool(count) << address
            self.input += data
        elif (address, count) == (0, 8):
            self.input += framed(bytes((0x11, 1, 1, self.coils)))
        else:
            self.input += framed(bytes((0x11, 0x81, 2)))


def test_coils_that_are_read_only_all_at_once_are_read_back_so():
    points = {f"c{n}": {"kind": "coil", "address": n, "write": True, "safe": False} for n in range(8)}
    device = driver(AllCoils(), points)
    device.open()
    assert device.write({"c3": True}) == {"c3": True}
    assert device.read() == {f"c{n}": n == 3 for n in range(8)}


@pytest.mark.parametrize("code", ["04", "05", "0b"])
def test_what_leaves_open_whether_it_was_written_is_no_refusal(code):
    """A failure while doing it, begun and not done yet, and a gateway whose target is silent."""
    line = ScriptedLine(framed(bytes.fromhex("1186" + code)))
    device = driver(line, {"a": {"address": 0, "write": True, "safe": 0}})
    with pytest.raises(BusTimeout, match="not known"):
        device.write({"a": 5})


def test_a_unit_that_a_gateway_cannot_reach_has_not_answered():
    device = driver(ScriptedLine(*[framed(bytes.fromhex("1183 0b"))] * 2), {"a": {"address": 0}})
    with pytest.raises(NoAnswer, match="gateway"):
        device.read()


@pytest.mark.parametrize(
    ("written", "known"),
    [([1, 2], False), ([1, 1], True)],
    ids=["another value", "the same value"],
)
def test_a_late_answer_to_a_write_confirms_no_other_one(written, known):
    """Function 16: the answer has address and count alone."""
    points = {"a": {"address": 0, "type": "uint32", "write": True, "safe": 0}}
    late = framed(bytes.fromhex("1110 0000 0002"))
    read_back = framed(bytes.fromhex("1103 04 0000 0001"))
    line = ScriptedLine(b"", late, b"", read_back)
    device = driver(line, points)
    with pytest.raises(BusTimeout):
        device.write({"a": written[0]})
    with contextlib.nullcontext() if known else pytest.raises(BusTimeout, match="may be to what was written"):
        device.write({"a": written[1]})


class SlowLine(ScriptedLine):
    """Bytes at 4800 baud: so many at a time, after as long as they take."""

    baud = 4800

    def read(self, size: int, timeout_s: float) -> bytes:
        return super().read(min(size, int(timeout_s * self.baud / 11)), timeout_s)


def test_the_limit_is_for_the_unit_and_not_for_the_line():
    """125 registers take 0.58 s at 4800 baud."""
    data = bytes(range(250))
    line = SlowLine(framed(bytes((0x11, 3, 250)) + data))
    assert asked(line, timeout_s=0.1).read(3, 0, 125) == data


def test_a_unit_that_falls_silent_is_not_asked_for_the_rest():
    points = {"a": {"address": 0}, "b": {"address": 5}, "c": {"address": 9}}
    line = ScriptedLine(framed(bytes.fromhex("1103 02 0001")))
    no_answer = Flagged(None, Flag.NO_ANSWER)
    assert driver(line, points).read() == {"a": 1, "b": no_answer, "c": no_answer}
    assert len(line.sent) == 3


def test_a_late_answer_is_discarded(bench):
    it = bench(ModbusRtu, "meter", points={"a": {"address": 0}})
    it.driver.open()
    it.board.set("it", a=7)
    it.board.feed("meter", framed(bytes.fromhex("0103 02 0063")))
    assert it.measure() == {"a": 7}


@pytest.mark.parametrize("kind", ["nack", "corrupt"])
def test_faults_of_the_line(bench, kind):
    it = bench(ModbusRtu, "meter", points=DRIVE)
    it.driver.open()
    it.board.fault("meter", kind)
    with pytest.raises((NoAnswer, BadReading)):
        it.measure()
    with pytest.raises(BusTimeout):
        it.driver.write({"run": True})
    it.board.heal()
    assert it.measure()["run"] is True  # it was carried out all the same


def test_a_silent_unit_cannot_be_opened_to_be_driven(bench):
    it = bench(ModbusRtu, "meter", points=DRIVE)
    it.board.fault("meter", "nack")
    with pytest.raises(NoAnswer):
        it.driver.open()


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ({}, "points"),
        ({"a": {}}, "address"),
        ({"a": {"address": 65536}}, "address"),
        ({"a": {"address": 65535, "type": "uint32"}}, "beyond the last"),
        ({"a": {"address": 0, "kind": "coil", "type": "uint16"}}, "one bit"),
        ({"a": {"address": 0, "kind": "input", "write": True, "safe": 0}}, "can be written"),
        ({"a": {"address": 0, "write": True}}, "needs a `safe`"),
        ({"a": {"address": 0, "write": True, "safe": True}}, "no value of its type"),
        ({"a": {"address": 0, "bit": 3}}, "`bit`"),
        ({"a": {"address": 0, "type": "bool", "bit": 3, "write": True, "safe": False}}, "whole holding"),
        ({"a": {"address": 0, "scale": 0}}, "must not be 0"),
        ({"a": {"address": 0, "type": "uint24"}}, "type"),
        ({"a": {"address": 0, "word_order": "middle"}}, "word_order"),
        ({"a": {"address": 0, "mask": 0x10000}}, "more bits"),
        ({"a": {"address": 0, "type": "float32", "mask": 1}}, "`mask` is for integers"),
        ({"a": {"address": 0, "type": "int16", "mask": 1, "sign_magnitude": True}}, "`mask` is for integers"),
        ({"a": {"address": 0, "sign_magnitude": True}}, "signed types"),
        ({"a": {"address": 0, "type": "string"}}, "`length`"),
        ({"a": {"address": 0, "on": 5}}, "`on` is for type bool"),
        ({"a": {"address": 0, "type": "bool", "write": True, "safe": False, "state": "b"}}, "no bool"),
        ({"a": {"address": 0, "type": "bool", "scale": 2}}, "`scale` is for numbers"),
    ],
)
def test_points_are_checked(points, message):
    with pytest.raises(ValueError, match=message):
        ModbusRtuConfig.model_validate({"points": points})


def test_units_share_a_line_by_their_numbers():
    config = ModbusRtuConfig.model_validate({"points": {"a": {"address": 0}}, "unit": 7})
    assert ModbusRtu.claims(config) == ("unit 7",)
