"""The child that answers one query: JSON on standard input; a line of JSON and the bytes on standard output.

A process of its own, so that a large answer or a picture delays no event and its memory is freed.
"""

import contextlib
import json
import os
import sqlite3
import sys
from pathlib import Path

from device_agent.errors import Fault
from device_agent.history.error_texts import no_pillow, too_much, unreadable
from device_agent.history.export import export
from device_agent.history.query import Query, TooMuch

# Actuators and streams have priority.
NICENESS = 10


def main() -> int:
    # The sandbox of the systemd service forbids it.
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    query = Query.from_members(json.load(sys.stdin))
    try:
        done = export(query)
    except TooMuch:
        return _refuse(Fault("invalid_value", too_much(query.limit_bytes)))
    except ImportError:
        return _refuse(Fault("invalid_value", no_pillow()))
    except (sqlite3.Error, OSError) as error:
        return _refuse(Fault("internal", unreadable(query.path, error)))
    if not query.out:
        return _say({"count": done.count}, done.data)
    try:
        Path(query.out).write_bytes(done.data)
    except OSError as error:
        return _refuse(Fault("internal", f"the answer cannot be kept: {error}"))
    return _say({"count": done.count})


def _refuse(fault: Fault) -> int:
    return _say({"error": fault.members()})


def _say(head: dict[str, object], body: bytes = b"") -> int:
    sys.stdout.buffer.write(json.dumps(head).encode() + b"\n")
    sys.stdout.buffer.write(body)
    sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
