"""The far end of `serial-lines`: an instrument made from the configuration.

It says a line whenever one of its quantities is set, and takes the commands that the configuration sends.
"""

import json
import re
from re import _constants as codes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import TYPE_CHECKING, Any

from device_agent.testing.chips import Physical, SerialChip
from device_agent_drivers.checksums import crc16_arc, negated_sum8, xor8
from device_agent_drivers.configured import parser_of
from device_agent_drivers.simulated.commands import reader_of
from device_agent_drivers.simulated.documents import dated, documents_of

if TYPE_CHECKING:
    from device_agent_drivers.lines import LineOptions


def _nmea(text: bytes) -> bytes:
    body = text.removeprefix(b"$")
    return b"$%s*%02X\r\n" % (body, xor8(body))


def _ve_direct(text: bytes) -> bytes:
    block = b"\r\n" + text.strip() + b"\r\nChecksum\t"
    return block + bytes((negated_sum8(block),))


def _p1(text: bytes) -> bytes:
    telegram = b"/SIM5\r\n\r\n" + text + b"\r\n!"
    return b"%s%04X\r\n" % (telegram, crc16_arc(telegram))


def _iec(text: bytes) -> bytes:
    summed = text + b"\r\n!\r\n\x03"
    return b"\x02" + summed + bytes((xor8(summed),))


def _lrc(text: bytes) -> bytes:
    digits = text.strip().removeprefix(b":")
    return b":%s%02X\r\n" % (digits, negated_sum8(bytes.fromhex(digits.decode())))


SEALS = {"nmea": _nmea, "ve-direct": _ve_direct, "p1": _p1, "iec-62056-21": _iec, "lrc": _lrc}
"""By `checksum`: a telegram of this text."""


class SimulatedLines(SerialChip):
    """Quantities are the points, in their units; a writable one is also an output."""

    def __init__(self, config: "LineOptions") -> None:
        empty: dict[str, Physical] = {"boolean": False, "string": "", "number": 0.0, "integer": 0}
        super().__init__(
            {name: options.safe or empty[options.type] for name, options in config.points.items()}
        )
        self._config = config
        self._commands = [reader_of(template) for template in config.templates()]
        self._received = ""

    def outputs(self) -> dict[str, Physical]:
        return {name: v for name, v in self._quantities.items() if self._config.points[name].write}

    def changed(self, quantity: str) -> None:
        end, lines = self._config.line_end, self.lines()
        if self._config.checksum != "none":
            text = end.join(lines).encode(self._config.encoding)
            self.say(SEALS[self._config.checksum](text))
        else:  # a line end before it: who has just begun to listen knows where it starts
            self.say((end + "".join(line + end for line in lines)).encode(self._config.encoding))

    def texts(self) -> dict[str, str]:
        """The present quantities as they are written."""
        points = self._config.points
        return {n: str(points[n].to_wire(v)) for n, v in dated(points, self._quantities).items()}

    def greeting(self) -> bytes:
        return self._line_like("ready_line")

    def _line_like(self, option: str) -> bytes:
        pattern = getattr(self._config, option, None)
        line = written_as(pattern, self.texts()) if pattern is not None else ""
        return (line + self._config.line_end).encode(self._config.encoding) if line else b""

    def lines(self) -> list[str]:
        """The lines that the configuration's format makes of the present quantities; mostly one."""
        config, texts = self._config, self.texts()
        if config.format == "csv":
            return [config.separator.join(texts.get(name, "") for name in config.columns)]
        if config.format == "json":
            members = dated(config.points, self._quantities)
            return [json.dumps(document) for document in documents_of(config.points, members)]
        return [written_as(config.pattern or "", texts)]

    def receive(self, data: bytes) -> None:
        self._received = (self._received + data.decode(self._config.encoding, "replace"))[-4096:]
        for command in self._commands:
            for match in command.finditer(self._received):
                for name, text in match.groupdict().items():
                    value = parser_of(self._config.points[name])(text)
                    if isinstance(value, bool | int | float | str):
                        self._quantities[name] = value
                self.say(self._line_like("confirm"))
            self._received = command.sub("", self._received)


def written_as(pattern: str, texts: dict[str, str]) -> str:
    """A text that the pattern matches, with these texts in its named groups; "" where that is beyond it."""
    tree = parser.parse(pattern)
    names: dict[int, str] = {number: name for name, number in tree.state.groupdict.items()}
    line = "".join(_text(node, names, texts) for node in tree)
    return line if re.search(pattern, line) else ""


def _text(node: Any, names: dict[int, str], texts: dict[str, str]) -> str:
    code, argument = node
    if code is codes.LITERAL:
        return chr(argument)
    if code is codes.SUBPATTERN:
        number, inner = argument[0], argument[-1]
        if number in names:
            return texts[names[number]]
        return "".join(_text(part, names, texts) for part in inner)
    if code in (codes.MAX_REPEAT, codes.MIN_REPEAT):
        least, _, inner = argument
        text = "".join(_text(part, names, texts) for part in inner)
        return text * max(int(least), any(part[0] is codes.SUBPATTERN for part in inner))
    if code is codes.IN:
        return _member(argument[0])
    if code is codes.BRANCH:
        return "".join(_text(part, names, texts) for part in argument[1][0])
    return "" if code is codes.AT else " "


def _member(choice: Any) -> str:
    code, argument = choice
    if code is codes.LITERAL:
        return chr(argument)
    if code is codes.RANGE:
        return chr(argument[0])
    if argument is codes.CATEGORY_DIGIT:
        return "0"
    return "a" if argument is codes.CATEGORY_WORD else " "
