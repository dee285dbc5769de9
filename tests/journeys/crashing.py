"""Runs the daemon until a step that was chosen, and kills it there as `kill -9` would.

    crashing.py FILE run …

Once FILE exists, the N-th call or return of a function on the way of readings and commands is the last thing
that this process does, on whichever thread it happens; FILE.at then names it. N is the text in FILE; a module
may follow, whose steps alone count then.
"""

import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import device_agent
from device_agent.cli import main

PACKAGE = Path(device_agent.__file__).parent
STEPS = tuple(
    str(PACKAGE / name)
    for name in (
        "commands/executor.py",
        "commands/plan.py",
        "devices/device.py",
        "devices/dispatcher.py",
        "tasks/session_stream.py",
        "tasks/stream_input.py",
        "tasks/subscription.py",
        "safety/safe_states.py",
        "safety/permit.py",
        "safety/safe_recorder.py",
        "store/journal/journal.py",
        "store/outbox/channel_queue.py",
        "store/outbox/outbox.py",
        "store/outbox/crash_log.py",
        "store/outbox/outbox_file.py",
        "network/blocks/writer.py",
        "network/blocks/control.py",
    )
)
"""The modules that readings and commands go through."""


def kill_at_step(file: Path) -> None:
    left: list[int] = []
    where = STEPS

    def step(frame: FrameType, event: str, _: Any) -> None:
        nonlocal where
        if event not in ("call", "return") or not frame.f_code.co_filename.endswith(where):
            return
        if not left:
            if not file.exists():
                return
            number, *only = file.read_text().split()
            left.append(int(number))
            where = tuple(only) or STEPS
            if not frame.f_code.co_filename.endswith(where):
                return
        left[0] -= 1
        if left[0] <= 0:
            code = frame.f_code
            file.with_suffix(".at").write_text(f"{event} of {Path(code.co_filename).stem}.{code.co_qualname}")
            os.kill(os.getpid(), signal.SIGKILL)

    threading.setprofile(step)
    sys.setprofile(step)


if __name__ == "__main__":
    for path in STEPS:
        assert Path(path).exists(), f"{path} is no module any more: name the one that took its place"
    kill_at_step(Path(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
