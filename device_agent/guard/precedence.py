"""What lets the guard act in time on a busy machine: it runs before others, and stays in memory."""

from __future__ import annotations

import gc
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Of 1 to 99: above every ordinary process, below the kernel's own threads of interrupts (50).
PRIORITY = 10
# linux/mman.h: what there is now, once it has been used.
MCL_CURRENT, MCL_ONFAULT = 1, 4


def take_precedence() -> str:
    """Do what this process may; what it may not, in words for its owner, "" for nothing."""
    gc.freeze()  # what is there now is never looked through again
    missing = []
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    except OSError as error:
        missing.append(f"no real-time priority ({error.strerror})")
    if not _locked():
        missing.append("its memory may be swapped out")
    return ", ".join(missing)


def _locked() -> bool:
    """Whether what has been loaded so far stays in memory."""
    try:
        import _ctypes  # the package around it would double what the guard needs

        program: Any = None
        lock = _ctypes.dlsym(_ctypes.dlopen(program, 0), "mlockall")
        return bool(_ctypes.call_function(lock, (MCL_CURRENT | MCL_ONFAULT,)) == 0)
    except (ImportError, OSError):
        return False
