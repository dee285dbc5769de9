"""The configuration as another process has read and checked it: the daemon needs no models for that.

    python -m device_agent.config.handover FILE

writes to standard output, pickled, the `Config` or the ConfigError that `load` gave.
"""

import asyncio
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

from device_agent.config import checked_before
from device_agent.config.models import Config
from device_agent.config.secret import child_environment
from device_agent.errors import ConfigError, NotReady

# Interpreter, models and drivers, on a Pi Zero with a cold card.
CHECK_LIMIT_S = 60.0


def _command(path: Path) -> tuple[str, ...]:
    # -P: nothing is imported from the working directory.
    return (sys.executable, "-P", "-m", "device_agent.config.handover", str(path))


class Handover:
    """The configuration of a start, which is checked while the daemon is being imported, if it has to be."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = checked_before.known(path)
        self._child: subprocess.Popen[bytes] | None = None
        if self._known is None:
            self._child = subprocess.Popen(
                _command(path), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=child_environment()
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is None:
            return
        if self._child.poll() is None:
            self._child.kill()
        with self._child:
            pass

    def config(self) -> Config:
        """Raises ConfigError with every fault of the file, NotReady where it could not be checked."""
        if self._child is None:
            return _received(self._path, self._known or b"", 0)
        with self._child as child:
            try:
                data, _ = child.communicate(timeout=CHECK_LIMIT_S)
            except subprocess.TimeoutExpired:
                child.kill()
                raise _too_slow(self._path) from None
        return _received(self._path, data, child.returncode)


async def checked(path: Path) -> Config:
    """The configuration as it is now. Raises as `Handover.config`."""
    child = await asyncio.create_subprocess_exec(
        *_command(path),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        env=child_environment(),
    )
    try:
        async with asyncio.timeout(CHECK_LIMIT_S):
            data, _ = await child.communicate()
    except TimeoutError:
        raise _too_slow(path) from None
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    return _received(path, data, child.returncode)


def _too_slow(path: Path) -> NotReady:
    return NotReady(f"{path} could not be checked within {CHECK_LIMIT_S:g} s: the machine is too busy")


def _received(path: Path, data: bytes, code: int | None) -> Config:
    if code != 0:
        raise NotReady(f"{path} could not be checked: the process that checks it ended with {code}")
    answer = pickle.loads(data)
    if isinstance(answer, ConfigError):
        raise answer
    assert isinstance(answer, Config)
    return answer


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Whatever a driver's module prints when it is imported, it is no part of the answer.
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)
        from device_agent.config import load

        path = Path(sys.argv[1])
        check = checked_before.Check(path)
        try:
            answer = pickle.dumps(load(path))
        except ConfigError as error:
            out.write(pickle.dumps(error))
        else:
            out.write(answer)
            check.keep(answer)


if __name__ == "__main__":
    main()
