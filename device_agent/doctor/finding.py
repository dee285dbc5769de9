"""A finding of `doctor`, and what is examined."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from device_agent.config import Config
from device_agent.discovery.system import System, SystemUser

Level = Literal["ok", "note", "question", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A `problem` counts for the exit code; a `question` waits for an answer; a `note` is good to know."""

    level: Level
    what: str
    where: str = ""
    why: str = ""
    remedy: str = ""
    """The command to type, or the part to solder."""
    fix: tuple[str, ...] = ()
    """The command that mends it, where that needs no judgement: `doctor --fix` runs it."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is examined: a machine, the user that runs the daemon, the configuration if there is one."""

    system: System
    user: SystemUser
    config: Config | None = None
    environ: Mapping[str, str] = field(default_factory=dict)
    reach: Callable[[str, str | None], str] | None = None
    """Whether a URL can be reached, perhaps by a proxy: "" or what went wrong. None: not to be tried."""
    now_ms: Callable[[], int] = lambda: 0
    daemon_runs: bool = False


def ok(what: str, where: str = "") -> Finding:
    return Finding("ok", what, where)
