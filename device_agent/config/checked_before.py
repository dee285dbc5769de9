"""A configuration that was checked at an earlier start: an ordinary start does not check it again.

The service's state directory keeps the answer of the process that checked, with a stamp of all that it
depends on: the file, the environment, and every module and folder that this process imported from. Where
anything differs, or others could have written it, there is no answer and the file is checked anew.
"""

import contextlib
import hashlib
import os
import pickle
import stat
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from device_agent import __version__
from device_agent.config.secret import child_environment
from device_agent.store.files import write_atomically

FILE = "configuration.checked"
_MAX_BYTES = 4_000_000
# The steps of a file system's clock: what changes twice in one has the same time.
_STEP_NS = 100_000_000
_DIGEST_BYTES = hashlib.sha256().digest_size
# What systemd says anew at each start, and no configuration depends on.
_PASSING = ("INVOCATION_ID", "JOURNAL_STREAM", "MEMORY_PRESSURE_", "SYSTEMD_EXEC_PID", "LISTEN_")


def known(path: Path) -> bytes | None:
    """What `keep` was given for this configuration as it is now; None where it is to be checked."""
    try:
        data = _read(_place())
        kept, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
        if hashlib.sha256(kept).digest() != digest:
            return None
        stamp, sources, answer = pickle.loads(kept)
        return bytes(answer) if stamp == _stamp(path, sources) else None
    except (OSError, ValueError, TypeError, EOFError, pickle.UnpicklingError, LookupError):
        return None


class Check:
    """One check of a configuration, from before it is read until its answer is known."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._began_ns = time.time_ns()
        self._before = self._taken(())

    def keep(self, answer: bytes) -> None:
        """For the next start, unless something has changed since; where that cannot be, nothing is kept."""
        sources = sorted({sys.executable, *filter(None, sys.path), *_files()})
        changed = self._taken(()) != self._before or _newest_ns(sources) + _STEP_NS >= self._began_ns
        if changed or not self._before:
            return
        kept = pickle.dumps((self._taken(sources), sources, answer))
        with contextlib.suppress(OSError):
            write_atomically(_place(), kept + hashlib.sha256(kept).digest())

    def _taken(self, sources: Iterable[str]) -> bytes:
        try:
            return _stamp(self._path, sources)
        except OSError:
            return b""


def _place() -> Path:
    """Raises FileNotFoundError outside the service."""
    folder = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if not folder:
        raise FileNotFoundError("the service manager names no state directory")
    return Path(folder, FILE)


def _read(path: Path) -> bytes:
    """Raises OSError where others than this user could have written it."""
    _require_own(os.stat(path.parent))
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        _require_own(os.fstat(file.fileno()))
        return file.read(_MAX_BYTES)


def _require_own(found: os.stat_result) -> None:
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o022:
        raise PermissionError("somebody else could have written it")


def _stamp(path: Path, sources: Iterable[str]) -> bytes:
    """Raises OSError where the configuration or the working directory cannot be read."""
    found = hashlib.sha256(path.read_bytes())
    environment = {n: v for n, v in child_environment().items() if not n.startswith(_PASSING)}
    found.update(repr((__version__, sys.version, os.geteuid(), str(path.absolute()))).encode())
    found.update(repr(sorted(environment.items())).encode())
    for source in sources:
        found.update(repr((source, _state(source))).encode())
    return found.digest()


def _state(source: str) -> tuple[int, ...]:
    """A file or folder: changed when its content is, whatever time its package gives it."""
    try:
        found = os.stat(source)
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _newest_ns(sources: Iterable[str]) -> int:
    return max((_state(source)[-1] for source in sources if _state(source)), default=0)


def _files() -> Iterable[str]:
    return (
        str(module.__file__) for module in list(sys.modules.values()) if getattr(module, "__file__", None)
    )
