"""What `device-agent run` does with a checked configuration: keys, directories, clock, the agent."""

import asyncio
import gc
import logging
import os
import signal
import sys
from functools import partial
from pathlib import Path

from device_agent.agent import Agent
from device_agent.bus.factory import make_handle
from device_agent.clock import Clock, SystemClock
from device_agent.config import Config
from device_agent.config.secret import SESSIONS_VARIABLE, VARIABLE, ApiKeys, api_key, sessions_key
from device_agent.devices.hardware import HandleFactory
from device_agent.errors import ConfigError, NotReady
from device_agent.network.blocks import (  # noqa: F401 - nobody waits for them here, on the loop all do
    http_library,
    pubnub_library,
)
from device_agent.operate.systemd import Notifier
from device_agent.store.state_directory import in_use, prepare

# How long the interpreter's lock is kept from a thread that wants it. The store thread gives it away for each
# row that it writes: with ten times as long it could not store what a flood of lines brought.
SWITCH_S = 0.0001
# So many new objects before garbage is searched for: readings and events, of which a flood makes thousands,
# go without.
GARBAGE_AFTER = 10_000


def run_configured(config: Config, *, simulate: bool, log_style: str) -> int:
    """Returns one of `common.Exit` after SIGTERM or SIGINT. Raises ConfigError, NotReady, AgentError."""
    sys.setswitchinterval(SWITCH_S)
    environ, folder = dict(os.environ), config.path.parent
    keys = ApiKeys(
        partial(api_key, config.network, folder, environ=environ),
        partial(sessions_key, config.delegation, folder, environ=environ),
    )
    try:
        prepare(config.state.directory, config.state.runtime_directory)
    except OSError as error:
        raise NotReady(
            f"state.directory: {error.filename} cannot be made ({error.strerror}): "
            "make it for this user, or name another directory"
        ) from error
    # Before anything else is begun: none of its children needs to know the keys.
    for variable in (VARIABLE, SESSIONS_VARIABLE):
        os.environ.pop(variable, None)
    # What stays is never searched for garbage again: on a small board that stops the loop for half a second.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_AFTER)
    with in_use(config.state.directory):
        handles, clock = _handles(simulate, config.path), _clock(simulate, config)
        return asyncio.run(_run(config, keys, handles, clock, log_style))


def _handles(simulate: bool, path: Path) -> HandleFactory:
    if not simulate:
        return make_handle
    from device_agent.testing.board.handles import open_handle
    from device_agent.testing.board.process import ensure_board

    return partial(open_handle, board=ensure_board(path))


def _clock(simulate: bool, config: Config) -> Clock:
    """The machine's; in a simulation one that goes wrong as the file `$DEVICE_AGENT_CLOCK` says."""
    memory, wrong = config.state.runtime_directory / "clock.json", os.environ.get("DEVICE_AGENT_CLOCK")
    if not simulate or not wrong:
        return SystemClock(memory)
    from device_agent.testing.clock import ShiftedClock

    return ShiftedClock(Path(wrong), memory)


def _without_key(config: Config, keys: ApiKeys) -> list[str]:
    """Why the delegations cannot ask yet. A key that comes later is taken up."""
    try:
        if config.delegations:
            keys.sessions()
    except ConfigError as error:
        return [f"delegations: {error}"]
    return []


async def _run(config: Config, keys: ApiKeys, handles: HandleFactory, clock: Clock, log_style: str) -> int:
    agent = Agent(config, keys, clock, handles, Notifier(), log_style=log_style)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, agent.stop)
    loop.add_signal_handler(signal.SIGHUP, agent.reload)
    for warning in (*config.warnings, *_without_key(config, keys)):
        logging.getLogger("config").warning(warning)
    return await agent.run()
