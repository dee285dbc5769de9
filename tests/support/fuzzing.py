"""Parsers that meet bytes of others, what each is fed with at first, and what changes of it are tried."""

import base64
import io
import json
import os
import random
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from device_agent.account import credentials
from device_agent.config.models import NetworkConfig
from device_agent.config.secret import api_key
from device_agent.delegation.answer import choice, presentable
from device_agent.errors import BusError, ConfigError, DriverError, NotReady, ProtocolFault, Refused, Rejected
from device_agent.guard.notes import Notes
from device_agent.messages.commands import id_of, parse
from device_agent.messages.requests import parse_pipe_request, parse_request
from device_agent.network import Part
from device_agent.network.blocks.http import parse_reply
from device_agent.network.blocks.long_poll import read_batch
from device_agent.network.blocks.messages import StreamReader
from device_agent.network.blocks.token_expiry import expires_ms
from device_agent.network.blocks.wire import parse_control
from device_agent.store.history.history_block import decode
from device_agent.store.outbox.crash_log import CrashLog, _records
from device_agent.text.printable import printable, within
from device_agent_drivers.camera_programs import Cutter
from device_agent_drivers.framed_msgpack import FramedMsgpack, FramedMsgpackConfig
from device_agent_drivers.modbus import framed
from device_agent_drivers.modbus_rtu import ModbusRtu, ModbusRtuConfig
from device_agent_drivers.nmea_gps import NmeaGps, NmeaGpsConfig
from device_agent_drivers.pms5003 import Pms5003, Pms5003Config
from device_agent_drivers.serial_lines import SerialLines, SerialLinesConfig
from support.scripted_line import ScriptedLine


class Target(NamedTuple):
    """`feed` may raise `own` and nothing else."""

    feed: Callable[[bytes], object]
    own: tuple[type[Exception], ...]
    corpus: tuple[bytes, ...]


# What was found to end a reader of messages or a start, and what is near to it.
FOUND = (
    b'{"kind":[]}',
    rb'{"kind":"stop","id":"\ud800"}',
    b'{"multipart":{"id":"m","part":1e400,"total":2},"data":""}',
    b'{"type":[]}',
    b"1" * 5000,
    b"[" * 1500 + b"]" * 1500,
    b"\x00" * 8,
    b"\xff\xfe\x80",
    b"NaN",
    b"",
)
EVENT = (
    b'{"kind":"set","id":"a","device":"valve","values":{"on":true,"level":1.5},"ttl_ms":5000,"dry_run":false}'
)
DO = b'{"kind":"do","id":"b","device":"valve","action":"pulse","args":{"for_s":2}}'
WORDS = b'{"kind":"rate","device":"x","every_s":1,"on_change":true,"dead_band":0.5}'
MESSAGE = b'{"type":"stream_events","streamId":"s","seq":1,"ts":2,"events":[{"kind":"pause"},7]}'
DATA = b'{"type":"stream_data","streamId":"s","seq":1,"ts":2,"encoding":"base64","chunks":["AAEC","///="]}'
PART = b'{"type":"stream_events","streamId":"s","multipart":{"id":"m","part":1,"total":2},"data":"e30="}'
BATCH = b'{"t":{"t":"170","r":12},"m":[{"c":"ch","d":{"type":"x"},"p":{"t":"1"},"u":{"sender":"a"}}]}'
START = (
    b'{"type":"StartTask","taskId":"t","taskKind":"pipe","duration":5,"durationExpiresAtMs":1800000000000,'
    b'"ownerId":"u","callerClaims":{"sub":"u"},"requestParts":[{"partId":"request","text":"{}"}]}'
)
GPS = b"$GPRMC,123519,A,4807.038,N,01131.000,E,022.4,084.4,230394,003.1,W*6A\r\n"
JSON_OF = json.loads


def as_json(parse_: Callable[[Any], object]) -> Callable[[bytes], object]:
    """Of what is JSON; what is none ends in the reader of JSON, which is not ours."""

    def feed(data: bytes) -> object:
        try:
            value = JSON_OF(data)
        except (ValueError, RecursionError):
            return None
        return parse_(value)

    return feed


def finished(work: Coroutine[Any, Any, Any]) -> Any:
    """Its result; it waits for nothing but its turn."""
    while True:
        try:
            work.send(None)
        except StopIteration as end:
            return end.value


def reader(format_: Any) -> Callable[[Any], object]:
    inbound = StreamReader("s", format_)
    return lambda payload: inbound.feed(payload, 0.0, "sender", 0.0)


def listener(make: Callable[[], Any]) -> Callable[[bytes], object]:
    driver = make()
    return lambda data: [dict(values) for values in driver.feed(data)]


def lines(**options: Any) -> Callable[[], SerialLines]:
    config = SerialLinesConfig.model_validate({"bus": "b", **options})
    return lambda: SerialLines(config, None)  # type: ignore[arg-type]


def text_part(data: bytes) -> Part:
    return Part("request", "application/json", data.decode(errors="replace"))


def on_event(event: Any) -> object:
    id_of(event)
    return parse(event)


def logged(*records: list[Any]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        log = CrashLog(path, "b")
        assert log.begin(records)
        return path.read_bytes()


def crash_log(data: bytes) -> list[Any]:
    return list(_records(io.BytesIO(data)))


def modbus(answer: Callable[[bytes], bytes]) -> Callable[[bytes], object]:
    """A reading by these bytes as the unit's answer; the unit has points of every type."""

    def feed(data: bytes) -> object:
        line = ScriptedLine(answer(data))
        return ModbusRtu(MODBUS, line, lambda seconds: None).read()  # type: ignore[arg-type]

    return feed


def registers(data: bytes) -> bytes:
    """These bytes as the whole answer to the question for all registers, with a true checksum."""
    return framed(bytes((1, 3, MODBUS_BYTES)) + data[:MODBUS_BYTES].ljust(MODBUS_BYTES, b"\0"))


def file_of(load: Callable[[Path], object]) -> Callable[[bytes], object]:
    """What is read from a file with these bytes, for its owner alone; it is in memory."""
    file = os.memfd_create("fuzzed")
    os.fchmod(file, 0o600)

    def feed(data: bytes) -> object:
        os.ftruncate(file, 0)
        os.pwrite(file, data, 0)
        return load(Path(f"/proc/self/fd/{file}"))

    return feed


MODBUS = ModbusRtuConfig.model_validate(
    {
        "bus": "b",
        "points": {
            "a": {"address": 0, "type": "float32"},
            "b": {"address": 2, "type": "int16", "scale": 0.1},
            "c": {"address": 3, "type": "float64", "word_order": "little"},
            "d": {"address": 7, "type": "string", "length": 4},
            "e": {"address": 11, "type": "bool", "bit": 5},
            "f": {"address": 12, "type": "uint64"},
        },
    }
)
MODBUS_BYTES = 32
TOKEN = base64.urlsafe_b64encode(b"\xa3\x61v\x02\x61t\x1a\x65\x00\x00\x00\x63ttl\x19\x05\xa0")
LOGIN = b'{"schema_version":2,"api_key":"bk_x","expires_at":"2099"}'
WEIGHT = {"weight": {"unit": "g"}}
FRAMED = FramedMsgpackConfig.model_validate({"bus": "b", "points": WEIGHT})
TARGETS: dict[str, Target] = {
    "control message": Target(as_json(parse_control), (ProtocolFault,), (START,)),
    "event": Target(as_json(on_event), (Rejected,), (EVENT, DO, WORDS)),
    "request": Target(
        lambda data: parse_request([text_part(data)], takes_file=True),
        (Rejected,),
        (
            b'{"op":"read","devices":["a"]}',
            b'{"op":"history","from":"2026-01-01","every_s":60}',
        ),
    ),
    "pipe request": Target(
        lambda data: parse_pipe_request([text_part(data)]), (Rejected,), (b'{"streams":["a"],"every_s":2}',)
    ),
    "stream of events": Target(as_json(reader("events")), (ProtocolFault,), (MESSAGE, PART)),
    "stream of bytes": Target(as_json(reader("bytes")), (ProtocolFault,), (DATA, PART)),
    "long-poll": Target(
        lambda data: finished(read_batch("ch", data.decode(errors="replace"))), (ProtocolFault,), (BATCH,)
    ),
    "reply": Target(
        lambda data: parse_reply("GET /", 200 + data[:1].count(b"{") * 200, data),
        (Refused, ProtocolFault),
        (b'{"error":{"code":"x","message":"y"}}', b'{"a":1}'),
    ),
    "answer of an AI agent": Target(
        lambda data: (choice(data.decode(errors="replace"), {}), presentable(data.decode(errors="replace"))),
        (),
        (b'I would open it.\n```json\n{"command": "open_vent"}\n```\n',),
    ),
    "crash log": Target(crash_log, (), (logged([1, "x", b"y", None]),)),
    "block of history": Target(lambda data: decode("d", 0, data), (ValueError,), ()),
    "line by a pattern": Target(
        listener(lines(pattern=r"^W +(?P<weight>-?[0-9.]+)", points=WEIGHT)),
        (DriverError,),
        (b"W  12.5 g\r\n",),
    ),
    "line of columns": Target(
        listener(lines(format="csv", columns=["", "weight"], points=WEIGHT)), (DriverError,), (b"1,2.5,x\n",)
    ),
    "line of JSON": Target(
        listener(lines(format="json", points={"weight": {"unit": "g", "path": "a.b"}})),
        (DriverError,),
        (b'{"a":{"b":1.5}}\n', b'{"a":[{"b":1e999}]}\n'),
    ),
    "sentence of GPS": Target(listener(lambda: NmeaGps(NmeaGpsConfig(), None)), (DriverError,), (GPS,)),  # type: ignore[arg-type]
    "frame of a dust sensor": Target(
        listener(lambda: Pms5003(Pms5003Config(), None)),  # type: ignore[arg-type]
        (DriverError,),
        (b"BM\x00\x1c" + bytes(26) + b"\x00\xab",),
    ),
    "frame of msgpack": Target(
        listener(
            lambda: FramedMsgpack(FramedMsgpackConfig.model_validate({"bus": "b", "points": WEIGHT}), None)
        ),  # type: ignore[arg-type]
        (DriverError,),
        (b"\x81\xa6weight\xcb\x40\x29\x00\x00\x00\x00\x00\x00\x00",),
    ),
    "answer of Modbus": Target(
        modbus(lambda data: data),
        (BusError, DriverError),
        (framed(bytes((1, 3, MODBUS_BYTES)) + bytes(MODBUS_BYTES)), framed(b"\x01\x83\x02")),
    ),
    "registers of Modbus": Target(
        modbus(registers), (BusError, DriverError), (b"\x7f\x80\0\0" + bytes(range(28)),)
    ),
    "pictures of a camera": Target(Cutter().feed, (), (b"\xff\xd8\xff\xe0" + bytes(20) + b"\xff\xd9",)),
    "token": Target(lambda data: expires_ms(data.decode(errors="replace")), (), (TOKEN,)),
    "token, unpacked": Target(
        lambda data: expires_ms(base64.b64encode(data, altchars=b"-_").decode()),
        (),
        (base64.urlsafe_b64decode(TOKEN),),
    ),
    "file of an API key": Target(
        file_of(lambda path: api_key(NetworkConfig(api_key_file=path), environ={})),
        (ConfigError, NotReady),
        (b"bk_0123456789abcdef\n",),
    ),
    "file of a login": Target(
        file_of(credentials.load),
        (ConfigError,),
        (LOGIN,),
    ),
    "notes of a guard": Target(file_of(lambda path: Notes(str(path)).read()), (), (b"\0\0\0\xff\xff",)),
    "text for a terminal": Target(
        lambda data: within(printable(data.decode(errors="surrogateescape")), 50),
        (),
        ("a\u202e\x1b[2J漢".encode(),),
    ),
}

INSERTED = (
    b"null", b"true", b"-1", b"1e400", b"1" * 400, b'""', b"[]", b"{}", rb'"\ud800"', b"\x00", b"\xff", b"\n",
    b"[" * 200, b'{"a":' * 200, b",", b":", b'"', b"}", b"]", b"0.1", b"NaN", b"9" * 30, b"*", b"$",
)  # fmt: skip


def changed(data: bytes, dice: random.Random) -> bytes:
    """One to four changes of a text: pieces left out, doubled, replaced, bits turned."""
    made = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        at = dice.randint(0, len(made))
        to = min(len(made), at + dice.choice((1, 1, 2, 5, 20)))
        match dice.randrange(5):
            case 0:
                del made[at:to]
            case 1:
                made[at:at] = made[at:to]
            case 2:
                made[at:to] = dice.choice(INSERTED)
            case 3:
                made[at:at] = dice.choice(INSERTED)
            case _ if at < len(made):
                made[at] ^= 1 << dice.randrange(8)
    return bytes(made)


def cases(target: Target, count: int, seed: int) -> Iterator[bytes]:
    """First what was found, then so many changes of it and of what is right."""
    dice = random.Random(seed)
    known = (*target.corpus, *FOUND)
    yield from known
    likely = (*target.corpus * 4, *known)
    for _ in range(count):
        yield changed(dice.choice(likely), dice)
