"""`device-agent run`: the daemon."""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import MutableMapping
from functools import partial
from pathlib import Path
from typing import Any

from device_agent.agent import Agent, prepare_directories
from device_agent.bus.factory import make_handle
from device_agent.cli.common import config_path
from device_agent.clock import Clock, SystemClock
from device_agent.config import Config, load
from device_agent.config.secret import ApiKeys, api_key, sessions_key
from device_agent.devices.hardware import HandleFactory
from device_agent.errors import ConfigError
from device_agent.operate.systemd import Notifier


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("run", help="the daemon", description=__doc__)
    parser.add_argument("--simulate", action="store_true", help="a simulated board in place of every bus")
    parser.add_argument(
        "--log", choices=("text", "json"), default="text", help="one line, or one JSON object"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs until SIGTERM or SIGINT; returns one of `common.Exit`."""
    configure_log(args.log)
    path = config_path(args)
    config = load(path)
    sessions = sessions_key(config.delegation) if config.delegations else ""
    keys = ApiKeys(api_key(config.network), sessions)
    try:
        prepare_directories(config)
    except OSError as error:
        raise ConfigError(
            f"state.directory: {error.filename} cannot be made ({error.strerror}): "
            "make it for this user, or name another directory"
        ) from error
    return asyncio.run(
        _run(config, keys, _handles(args.simulate, path), _clock(args.simulate, config), args.log)
    )


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


async def _run(config: Config, keys: ApiKeys, handles: HandleFactory, clock: Clock, log_style: str) -> int:
    agent = Agent(config, keys, clock, handles, Notifier(), log_style=log_style)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, agent.stop)
    loop.add_signal_handler(signal.SIGHUP, agent.reload)
    for warning in config.warnings:
        logging.getLogger("config").warning(warning)
    return await agent.run()


def configure_log(style: str) -> None:
    """One line an event on standard error: key=value, or a JSON object with `event`, `level`, `time`."""
    import structlog

    level = logging.getLevelNamesMapping().get(os.environ.get("LOG_LEVEL", "info").upper(), logging.INFO)
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    renderer: structlog.typing.Processor
    traceback: structlog.typing.Processor = (
        structlog.processors.format_exc_info if style == "json" else _plain
    )
    if style == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=24)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            traceback,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def _plain(logger: Any, name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The console renderer prints the traceback itself."""
    return event
