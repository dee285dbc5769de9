"""Whether one more task finds room: some is kept for those who may drive, and for a stop."""

from collections.abc import Collection, Sequence

from device_agent.commands.authorization import Actor, may
from device_agent.config import Config
from device_agent.messages.requests import asks_for_stop
from device_agent.network import StartTask

# With `concurrency = 0` those who may only read share so many places.
UNLIMITED = 1000
# Places beyond `concurrency`, for stops of those who may drive, or for the sessions by which they stop.
STOPS_MAX = 8


def declared(config: Config, names: Collection[str]) -> int:
    """How many tasks at once the network is told of, 0 for no limit: to an agent that it takes to be full it
    sends nothing, so where anybody may drive, the places for stops are among them."""
    limit = config.agent.concurrency
    return limit + STOPS_MAX if limit and _anybody_drives(config, names) else limit


def _anybody_drives(config: Config, names: Collection[str]) -> bool:
    return any(config.access.callers("drive", name) for name in names)


def has_room(config: Config, names: Collection[str], start: StartTask, running: Sequence[Actor]) -> bool:
    """Whether this task may begin beside those of these actors; `names` are of devices and delegations.

    Where anybody may drive, those who may not have three quarters of the places together, and each caller of
    them half: whoever holds his sessions for a month keeps neither a driver out nor another reader. Beyond
    all places comes in a stop of who may drive; to an agent without requests a session of who has none yet.
    """
    limit, access = config.agent.concurrency, config.access
    drives = {
        (one.caller, one.kind): any(may(access, "drive", one, name) for name in names)
        for one in [*running, Actor("", "", start.caller, start.kind)]
    }
    may_drive = drives[start.caller, start.kind]
    if limit and len(running) >= limit:
        if not may_drive or len(running) >= limit + STOPS_MAX:
            return False
        if "request" in config.agent.task_kinds:
            return start.kind == "request" and asks_for_stop(start.parts)
        return start.caller not in [one.caller for one in running]
    places = limit or UNLIMITED
    spare = places // 4
    if may_drive or not spare or not _anybody_drives(config, names):
        return True
    readers = [one.caller for one in running if not drives[one.caller, one.kind]]
    return len(readers) < places - spare and readers.count(start.caller) < places // 2
