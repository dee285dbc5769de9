"""One line an event on standard error, as the daemon writes them: key=value, or a JSON object."""

import sys
import time


class Log:
    """`style` is text, json, or quiet: text, and nothing while all is well.

    Made by hand: the json module alone is larger than the guard.
    """

    def __init__(self, style: str) -> None:
        self._json = style == "json"
        self._quiet = style == "quiet"

    def __call__(self, level: str, event: str, **members: object) -> None:
        if self._quiet and level == "info":
            return
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if self._json:
            pairs = {"event": event, **members, "level": level, "time": now}
            line = "{" + ", ".join(f'"{name}": {_json(value)}' for name, value in pairs.items()) + "}"
        else:
            rest = " ".join(f"{name}={value!r}" for name, value in members.items())
            line = f"{now} [{level:8}] {event:24} {rest}"
        try:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()
        except OSError:
            return  # nobody reads any more, which must not keep an actuator from being made safe


def _json(value: object) -> str:
    if isinstance(value, bool | None):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    text = "".join(sign if sign.isprintable() else " " for sign in str(value))
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
