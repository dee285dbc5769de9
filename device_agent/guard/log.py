"""One line an event on standard error, as the daemon writes them: key=value, or a JSON object."""

import time

from device_agent.guard.log_output import STANDARD_ERROR, LogOutput, marked, to_journal
from device_agent.text.printable import printable


class Log:
    """`style` is text, json, or quiet: text, and nothing while all is well.

    Made by hand: the json module alone is larger than the guard.
    """

    def __init__(self, style: str, fd: int = STANDARD_ERROR) -> None:
        self._json = style == "json"
        self._quiet = style == "quiet"
        self._for_journal = to_journal(fd)
        self._output = LogOutput(
            lambda count: self._line("warning", "log_lines_dropped", {"lines": count}), fd
        )
        self.close = self._output.close

    def __call__(self, level: str, event: str, **members: object) -> None:
        if not (self._quiet and level == "info"):
            self._output.write(self._line(level, event, members))

    def _line(self, level: str, event: str, members: dict[str, object]) -> str:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if self._json:
            pairs = {"event": event, **members, "level": level, "time": now}
            line = "{" + ", ".join(f'"{name}": {_json(value)}' for name, value in pairs.items()) + "}"
        else:
            rest = " ".join(f"{name}={value!r}" for name, value in members.items())
            line = f"{now} [{level:8}] {event:24} {rest}"
        return marked(line, level, for_journal=self._for_journal) + "\n"


def _json(value: object) -> str:
    if isinstance(value, bool | None):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    text = printable(value, 10_000)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
