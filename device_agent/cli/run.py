"""The daemon."""

import argparse
import logging
import os
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO, cast

from device_agent.cli.common import LINE_MAX, config_path
from device_agent.config.handover import Handover
from device_agent.guard.log_output import LogOutput, marked, to_journal
from device_agent.text.printable import printable

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
    with Handover(config_path(args)) as handover:
        # Imported while the other process checks the configuration.
        from device_agent.cli.daemon import run_configured

        config = handover.config()
    output = configure_log(args.log)
    try:
        return run_configured(config, simulate=args.simulate, log_style=args.log)
    finally:
        output.close(LOG_LIMIT_S)


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
    else:
        render = structlog.dev.ConsoleRenderer(
            24, colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
        before += [structlog.processors.format_exc_info, for_people]
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
        cache_logger_on_first_use=least is None,  # for the life of the process, which a command is not
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_LibraryLog()])
    logging.captureWarnings(True)
    return output


def for_people(_: Any, name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A line of the log is one line, whatever others wrote; those of a traceback are set in."""
    for key, value in event.items():
        if key == "exception":
            event[key] = "\n".join(f"  {printable(line, LINE_MAX)}" for line in str(value).splitlines())
        elif isinstance(value, str):
            event[key] = printable(value, LINE_MAX)
    return event


class _LibraryLog(logging.Handler):
    """What libraries log goes the same way as our own."""

    def emit(self, record: logging.LogRecord) -> None:
        import structlog

        log = structlog.get_logger(record.name)
        log.log(record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info)
