"""`python -m device_agent.guard --socket PATH`: the guard as a process. See the package for what it does."""

import os
import sys

if not __package__:  # run as a file, with `python -I -S`: the modules of `site` are memory for nothing
    sys.path.insert(0, __file__.rsplit("/", 3)[0])

import _signal  # type: ignore[import-not-found]
import _socket

from device_agent.guard.daemon_socket import bound
from device_agent.guard.log import Log
from device_agent.guard.log_output import open_standard_streams
from device_agent.guard.notes import Notes, lock
from device_agent.guard.process import GuardProcess

# Its last lines are waited for as long.
LOG_LIMIT_S = 1.0
USAGE = "usage: python -m device_agent.guard --socket PATH [--listen-fd N] [--log text|json|quiet]\n"
"""`--listen-fd`: an open socket that listens at PATH, from a daemon whose child this is."""


def main(words: list[str]) -> int:
    """Runs until it is not needed any more; returns the exit code."""
    open_standard_streams()
    options = dict(zip(words[::2], words[1::2], strict=False))
    if len(words) % 2 or not {"--socket"} <= set(options) <= {"--socket", "--listen-fd", "--log"}:
        sys.stderr.write(USAGE)
        return 2
    path, log = options["--socket"], Log(options.get("--log", "text"))
    child = "--listen-fd" in options
    try:
        if child:
            listener = _socket.socket(fileno=int(options["--listen-fd"]))
        else:
            if os.path.exists(path):
                os.unlink(path)  # left by one that was killed
            listener = bound(path)
        lock(path)
    except OSError as error:
        log("error", "guard_not_started", why=f"cannot listen at {path}: {error.strerror or error}")
        log.close(LOG_LIMIT_S)
        return 1
    guard = GuardProcess(listener, log, Notes(path + ".notes"), child=child)
    _signal.set_wakeup_fd(guard.wake, warn_on_full_buffer=False)
    _signal.signal(_signal.SIGTERM, lambda *_: guard.ask_to_end())
    _signal.signal(_signal.SIGINT, lambda *_: guard.ask_to_end())
    try:
        guard.run()
    finally:
        # The name goes first: whoever connects later must not wait for an answer.
        if os.path.exists(path):
            os.unlink(path)
        listener.close()
    # Not through the interpreter's end: a thread may be stuck in a bus for ever.
    log.close(LOG_LIMIT_S)
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
