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
from typing import Any, TextIO, cast

from device_agent.agent import Agent
from device_agent.bus.factory import make_handle
from device_agent.cli.common import config_path
from device_agent.clock import Clock, SystemClock
from device_agent.config import Config, load
from device_agent.config.secret import SESSIONS_VARIABLE, VARIABLE, ApiKeys, api_key, sessions_key
from device_agent.devices.hardware import HandleFactory
from device_agent.errors import NotReady
from device_agent.guard.log_output import LogOutput, marked, to_journal
from device_agent.operate.systemd import Notifier
from device_agent.store.state_directory import in_use, prepare

# A reader that stands still delays the end by this at most.
LOG_LIMIT_S = 1.0


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("run", help="the daemon", description=__doc__)
    parser.add_argument("--simulate", action="store_true", help="a simulated board in place of every bus")
    parser.add_argument(
        "--log", choices=("text", "json"), default="text", help="one line, or one JSON object"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs until SIGTERM or SIGINT; returns one of `common.Exit`."""
    output = configure_log(args.log)
    try:
        return _run_configured(args)
    finally:
        output.close(LOG_LIMIT_S)


def _run_configured(args: argparse.Namespace) -> int:
    path = config_path(args)
    config = load(path)
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
    with in_use(config.state.directory):
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


def configure_log(style: str, least: int | None = None) -> LogOutput:
    """One line an event on standard error: key=value, or a JSON object with `event`, `level`, `time`.

    `least` is a level of `logging`, else $LOG_LEVEL says it.

    Close what is returned, so that the last lines are out.
    """
    import structlog

    word = os.environ.get("LOG_LEVEL", "info").upper()
    level = least or logging.getLevelNamesMapping().get(word, logging.INFO)
    render: structlog.typing.Processor = structlog.processors.JSONRenderer()
    before: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    if style == "json":
        before.append(structlog.processors.format_exc_info)
    else:  # this one prints the traceback itself
        render = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=24)
    for_journal = to_journal()

    def line(logger: Any, name: str, event: MutableMapping[str, Any]) -> str:
        text, severity = "", str(event.get("level"))
        try:
            text = str(render(logger, name, event))
        except Exception as error:  # noqa: BLE001 - the log is written where errors are caught
            text = f"{severity} log_line_not_rendered {event.get('event')!r}: {type(error).__name__}"
        return marked(text, severity, for_journal=for_journal)

    def told(count: int) -> str:
        event: MutableMapping[str, Any] = {"event": "log_lines_dropped", "lines": count}
        for step in before:
            event = cast(MutableMapping[str, Any], step(None, "warning", event))
        return line(None, "warning", event) + "\n"

    output = LogOutput(told)
    structlog.configure(
        processors=[*before, line],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, output)),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_LibraryLog()])
    logging.captureWarnings(True)
    return output


class _LibraryLog(logging.Handler):
    """What libraries log goes the same way as our own."""

    def emit(self, record: logging.LogRecord) -> None:
        import structlog

        log = structlog.get_logger(record.name)
        log.log(record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info)
