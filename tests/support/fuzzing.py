"""Parsers that meet bytes of others, what each is fed with at first, and what changes of it are tried."""

import io
import json
import random
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, NamedTuple

from device_agent.delegation.answer import choice, presentable
from device_agent.errors import DriverError, ProtocolFault, Refused, Rejected
from device_agent.messages.commands import id_of, parse
from device_agent.messages.requests import parse_pipe_request, parse_request
from device_agent.network import Part
from device_agent.network.blocks.http import parse_reply
from device_agent.network.blocks.long_poll import read_batch
from device_agent.network.blocks.messages import StreamReader
from device_agent.network.blocks.wire import parse_control
from device_agent.store.history.history_block import decode
from device_agent.store.outbox.crash_log import _packed, _records
from device_agent.text.printable import printable, within
from device_agent_drivers.framed_msgpack import FramedMsgpack, FramedMsgpackConfig
from device_agent_drivers.nmea_gps import NmeaGps, NmeaGpsConfig
from device_agent_drivers.pms5003 import Pms5003, Pms5003Config
from device_agent_drivers.serial_lines import SerialLines, SerialLinesConfig


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


def crash_log(data: bytes) -> list[Any]:
    return list(_records(io.BytesIO(data)))


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
    "crash log": Target(crash_log, (), (_packed(["boot", "b"]) + _packed([1, "x", b"y", None]),)),
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
