"""SIGHUP: a new configuration is taken up where it differs; a bad one leaves the running one in force."""

import structlog

from device_agent.commands.control_side import ControlSide
from device_agent.config.handover import checked
from device_agent.devices.hardware import Hardware
from device_agent.errors import ConfigError
from device_agent.tasks.manager import TaskManager

log = structlog.get_logger("reload")

# Tables that are read when the process starts or joins; a change in them waits for the next start.
AT_START = (
    "agent",
    "network",
    "state",
    "outbox",
    "history",
    "safety",
    "delegation",
    "delegations",
    "rules",
    "alerts",
    "page",
    "mqtt",
)


class Reloader:
    """Applies a changed file to the parts that follow it."""

    def __init__(self, control: ControlSide, hardware: Hardware, tasks: TaskManager) -> None:
        self._config = self._begun = control.config
        self._refused: tuple[str, ...] = ()
        self._waiting: list[str] = []
        self._hardware = hardware
        self._safe_states = control.safe_states
        self._executor = control.executor
        self._tasks = tasks

    def figures(self) -> dict[str, list[str]]:
        """What the file said at the last reload and is not in force: its faults, its tables."""
        return {"refused": list(self._refused), "waits_for_restart": self._waiting}

    async def reload(self) -> bool:
        """Read the file again; False if it was refused."""
        try:
            config = await checked(self._config.path)
        except ConfigError as error:
            self._refused = error.problems
            for problem in error.problems:
                log.error("reload_refused", problem=problem)
            return False
        self._refused = ()
        self._waiting = [one for one in AT_START if getattr(config, one) != getattr(self._begun, one)]
        if self._waiting:
            log.warning("reload_waits_for_restart", tables=self._waiting)
        change = self._hardware.compare(config)
        gone = [*change.removed, *change.changed]
        # Safe before the hardware is let go; the new device opens at its own safe value.
        await self._safe_states.leave(gone, "configuration changed")
        await self._hardware.remove(gone)
        fresh = [*change.changed, *change.added]
        await self._hardware.adopt(config, fresh)
        for name in fresh:
            self._safe_states.adopt(self._hardware.devices[name])
        for name in change.removed:
            self._safe_states.forget(name)
        self._safe_states.enforce_conditions()
        self._executor.use_config(config)
        self._tasks.replace_devices(gone=gone, fresh=fresh)
        await self._tasks.judge_again()
        self._config = config
        log.info("reloaded", removed=change.removed, changed=change.changed, added=change.added)
        return True
