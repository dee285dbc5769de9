"""What all commands share: exit codes, the configuration's path, tables, errors as one sentence."""

import argparse
import io
import json
import logging
import os
import re
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO, TypeVar

from device_agent.errors import AgentError, BusDenied, ConfigError, NotReady, Rejected
from device_agent.guard.log_output import marked, open_standard_streams, to_journal
from device_agent.text.printable import printable

if TYPE_CHECKING:
    from device_agent.account.service import Account
    from device_agent.config import Config, NetworkConfig

DEFAULT_CONFIG = Path("/etc/device-agent/agent.toml")
CONFIG_VARIABLE = "DEVICE_AGENT_CONFIG"

T = TypeVar("T")
# Characters of what is printed at once.
LINE_MAX = 10_000
STYLES = {"bold": "1", "dim": "2", "reverse": "7", "red": "31", "green": "32", "yellow": "33"}
STYLES |= {"blue": "34", "magenta": "35", "cyan": "36"}
_SPANS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class Exit(IntEnum):
    """Exit codes; 69 to 78 as sysexits.h has them."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 69
    """The daemon is not reachable."""
    RESTART = 75
    """Stopped for a restart that may cure it."""
    DENIED = 77
    CONFIG = 78
    """The configuration needs a person."""
    INTERRUPTED = 130
    """Ctrl-C, as shells have it."""


class Unavailable(AgentError):
    """The daemon is not reachable; exit code 69."""


class Unresponsive(AgentError):
    """A daemon is there and does not answer; exit code 69."""


class UsageError(AgentError):
    """The command line is wrong; exit code 2. `usage` says how it should be."""

    def __init__(self, *problems: str, usage: str = "") -> None:
        super().__init__("; ".join(problems))
        self.problems = problems
        self.usage = usage


class Parser(argparse.ArgumentParser):
    """Raises UsageError instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, usage=self.format_usage())


def add_config_option(parser: argparse.ArgumentParser) -> None:
    """`--config FILE`, before or after the command; the later one wins."""
    if "--config" not in parser._option_string_actions:
        parser.add_argument(
            "--config",
            metavar="FILE",
            default=argparse.SUPPRESS,
            help=f"configuration file (else ${CONFIG_VARIABLE}, else {DEFAULT_CONFIG})",
        )


def config_path(args: argparse.Namespace, environ: Mapping[str, str] = os.environ) -> Path:
    """The configuration file: `--config`, else $DEVICE_AGENT_CONFIG, else /etc/device-agent/agent.toml."""
    named = getattr(args, "config", None) or environ.get(CONFIG_VARIABLE)
    return Path(named) if named else DEFAULT_CONFIG


def open_streams() -> None:
    """Standard streams that take every text: also where one is closed (`>&-`) or a terminal is Latin-1."""
    open_standard_streams()
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def run_command(command: Callable[[], int], *, as_json: bool = False) -> int:
    """Run a command to its exit code: errors become one sentence on standard error, never a traceback.

    `as_json`: each is an object on a line, as in the daemon's log, with `error` (`code`, `message`).
    """
    try:
        code = command()
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader (head, less) has left. Give the interpreter's last flush somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.DONE
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except AgentError as error:
        print_error(error, as_json=as_json)
        return exit_code(error)
    except Exception as error:  # the process ends with it; the log has the traceback
        logging.getLogger("device_agent").debug("unexpected error", exc_info=True)
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(frame.filename).name}:{frame.lineno}"
        bug = AgentError(f"unexpected {type(error).__name__} at {place}: {error}; please report it")
        print_error(bug, as_json=as_json)
        return Exit.FAILED


def exit_code(error: AgentError) -> Exit:
    """The exit code for a script: whether to retry, to edit the configuration, to change rights."""
    if isinstance(error, UsageError):
        return Exit.USAGE
    if isinstance(error, NotReady):
        return Exit.RESTART
    if isinstance(error, ConfigError):
        return Exit.CONFIG
    if isinstance(error, Unavailable | Unresponsive):
        return Exit.UNREACHABLE
    if isinstance(error, BusDenied) or (isinstance(error, Rejected) and error.code == "not_allowed"):
        return Exit.DENIED
    return Exit.FAILED


def print_error(error: AgentError, *, as_json: bool = False) -> None:
    """One sentence on standard error; for a configuration one line for each of its problems."""
    code = getattr(error, "code", "") or getattr(error, "reason", "") or exit_code(error).name.lower()
    problems: Sequence[str] = getattr(error, "problems", (str(error),))
    with suppress(OSError):  # the exit code says it too
        if isinstance(error, UsageError) and not as_json:
            sys.stderr.write(error.usage)
        for problem in problems:
            said = printable(problem, LINE_MAX)
            line = f"{styled('error', 'red', 'bold', stream=sys.stderr)}: {said}"
            if as_json:
                event = {"event": "error", "level": "error", "time": datetime.now(UTC).isoformat()}
                line = json.dumps({**event, "error": {"code": code, "message": said}})
            print(marked(line, "error", for_journal=to_journal()), file=sys.stderr)


def colour(stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether to use colour: on a terminal that can, unless $NO_COLOR is set."""
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def styled(text: str, *styles: str, stream: TextIO | None = None) -> str:
    """The text in these styles (bold dim red green yellow cyan) where the stream shows colour."""
    if not colour(stream or sys.stdout):
        return text
    return f"\x1b[{';'.join(STYLES[style] for style in styles)}m{text}\x1b[0m"


def print_json(value: Any) -> None:
    """One JSON document on standard output, indented for people and stable for programs."""
    ascii_only = not sys.stdout.encoding.lower().startswith("utf")
    text = json.dumps(value, indent=2, ensure_ascii=ascii_only, allow_nan=False)
    print("".join(sign if sign.isprintable() or sign == "\n" else json.dumps(sign)[1:-1] for sign in text))


def said(args: argparse.Namespace, value: Any, sentence: str) -> int:
    """Print the result as JSON where --json asks for it, else as a sentence."""
    if args.json:
        print_json(value)
    elif sentence:
        print(printable(sentence, LINE_MAX))
    return Exit.DONE


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table in columns; the last one is not padded."""
    rows = [[printable(cell, LINE_MAX) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
    for number, row in enumerate((headers, *rows)):
        cells = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        line = "  ".join((*cells, row[-1])).rstrip()
        print(styled(line, "bold") if number == 0 else line)


def confirm(question: str, *, yes: bool) -> None:
    """Returns where the answer is yes. Raises UsageError where nobody is there to ask, AgentError for no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("nobody is there to ask: add --yes")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise AgentError("nothing was done")


def network_of(args: argparse.Namespace) -> "tuple[Config | None, NetworkConfig]":
    """The configuration if there is one, and where the network is: these commands also run on a laptop."""
    from device_agent.config import NetworkConfig, load

    path = config_path(args)
    named = getattr(args, "config", None) is not None
    if not named and not path.exists():
        return None, NetworkConfig()
    config = load(path)
    return config, config.network


def parse_value(text: str) -> Any:
    """A JSON scalar, or else the text itself; on and off stand for true and false."""
    words = {"on": True, "off": False}
    if text.lower() in words:
        return words[text.lower()]
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return text if isinstance(value, (list, dict)) else value


def named_values(words: Sequence[str]) -> dict[str, Any]:
    """`NAME=VALUE` arguments as an object. Raises Rejected."""
    named = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise Rejected("invalid_value", f"{word!r} is not NAME=VALUE")
        named[name] = parse_value(value)
    return named


def span_s(text: str) -> float:
    """Seconds from `90`, `90s`, `5m`, `24h` or `7d`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    if found is None or float(found[1]) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no time span such as 90, 5m or 24h")
    return float(found[1]) * _SPANS_S[found[2] or "s"]


def instant_ms(text: str) -> int:
    """Epoch milliseconds from ISO 8601 (local time without an offset), epoch milliseconds, or an age."""
    if re.fullmatch(r"\d+(\.\d+)?[smhd]", text):
        return int((time.time() - span_s(text)) * 1000)
    try:
        return (
            int(text)
            if re.fullmatch(r"\d{9,15}", text)
            else int(datetime.fromisoformat(text).timestamp() * 1000)
        )
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no instant such as 2026-05-01T06:00, 24h or 1777608000000"
        ) from None


def with_account(network: "NetworkConfig", key: str, act: "Callable[[Account], Awaitable[T]]") -> T:
    """What `act` returns, done with the network's account service. Raises what the service raises."""
    import asyncio

    from device_agent.account.service import account

    async def run() -> T:
        async with account(network, key) as service:
            return await act(service)

    return asyncio.run(run())


def write_out(path: Path, data: bytes) -> None:
    """Write what --out names. Raises AgentError."""
    try:
        path.write_bytes(data)
    except OSError as error:
        raise AgentError(
            f"{path} cannot be written ({error.strerror}): name another file with --out"
        ) from None
