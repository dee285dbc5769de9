"""`completion SHELL` and `man`: what a shell completes, and the manual page, both made from the parser."""

import argparse
import shlex
import time
from collections.abc import Iterator, Sequence

from device_agent import __version__
from device_agent.cli.common import DEFAULT_CONFIG, Exit

SHELLS = ("bash", "zsh", "fish")
BASH = """\
_device_agent() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} path= word words=
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case "$path $word" in
            {paths}) path="$path $word" ;;
        esac
    done
    case "$path ${{COMP_WORDS[COMP_CWORD-1]}}" in
{values}
        *) case "$path" in
{words}
        esac ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _device_agent device-agent
"""
FILE = "The configuration, unless --config or $DEVICE_AGENT_CONFIG names another."
VARIABLES = "DEVICE_AGENT_CONFIG, BLOCKS_API_KEY, BLOCKS_SESSIONS_API_KEY, NO_COLOR, LOG_LEVEL"
EXIT_CODES = {
    Exit.DONE: "done",
    Exit.FAILED: "failed",
    Exit.USAGE: "the command line is wrong",
    Exit.UNREACHABLE: "the daemon, or the agent, is not reachable",
    Exit.RESTART: "stopped for a restart that may cure it",
    Exit.DENIED: "not allowed",
    Exit.CONFIG: "the configuration needs a person",
    Exit.INTERRUPTED: "interrupted",
}

Path = tuple[str, ...]


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    completion = subparsers.add_parser(
        "completion",
        help="what a shell completes",
        description="Print what a shell needs to complete commands and options: "
        "`source <(device-agent completion bash)`, or write it where the shell looks.",
    )
    completion.add_argument("shell", choices=SHELLS)
    completion.set_defaults(run=lambda args: _print(completion_text(args.shell)))
    man = subparsers.add_parser(
        "man", help="the manual page", description="Print the manual page: `device-agent man | man -l -`."
    )
    man.set_defaults(run=lambda args: _print(manual()))


def _print(text: str) -> int:
    print(text, end="")
    return Exit.DONE


def commands() -> Iterator[tuple[Path, argparse.ArgumentParser]]:
    """Every command and command of a command, with its parser; the program itself first."""
    from device_agent.cli import whole_parser

    waiting: list[tuple[Path, argparse.ArgumentParser]] = [((), whole_parser())]
    while waiting:
        path, parser = waiting.pop(0)
        yield path, parser
        inner = [((*path, name), one) for name, one in _inner(parser).items()]
        waiting = [*inner, *waiting]


def _inner(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    return next((dict(a.choices) for a in parser._actions if isinstance(a, argparse._SubParsersAction)), {})


def _shown(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if action.help != argparse.SUPPRESS]


def _words(parser: argparse.ArgumentParser) -> list[str]:
    """What may follow: commands, options, the values of positional arguments that have a list."""
    options = [word for action in _shown(parser) for word in action.option_strings if word.startswith("--")]
    values = [str(v) for a in _shown(parser) if not a.option_strings for v in a.choices or ()]
    return [*values, *options]


# -- shells -------------------------------------------------------------------------------------------------


def completion_text(shell: str) -> str:
    """A script for bash, zsh or fish."""
    if shell == "fish":
        return "\n".join(_fish()) + "\n"
    found = list(commands())
    paths = "|".join(shlex.quote(f" {' '.join(path)}") for path, _ in found if path)
    words = [f"{_case(path)}) words={shlex.quote(' '.join(_words(parser)))} ;;" for path, parser in found]
    values = [
        f"{'|'.join(_case((*path, word)) for word in action.option_strings)}) "
        f"words={shlex.quote(' '.join(map(str, action.choices)))} ;;"
        for path, parser in found
        for action in _shown(parser)
        if action.option_strings and action.choices
    ]
    script = BASH.format(paths=paths, words=_indented(words), values=_indented(values))
    return f"autoload -U +X bashcompinit && bashcompinit\n{script}" if shell == "zsh" else script


def _case(path: Sequence[str]) -> str:
    return shlex.quote("".join(f" {word}" for word in path))


def _indented(lines: Sequence[str]) -> str:
    return "\n".join(f"            {line}" for line in lines)


def _fish() -> Iterator[str]:
    for path, parser in commands():
        inner = _inner(parser)
        seen = [f"__fish_seen_subcommand_from {name}" for name in path] or ["__fish_use_subcommand"]
        seen += [f"not __fish_seen_subcommand_from {' '.join(inner)}"] if inner and path else []
        when = f"complete -c device-agent -n {shlex.quote('; and '.join(seen))}"
        for name in inner:
            yield f"{when} -f -a {name} -d {shlex.quote(_about(parser, name))}"
        for action in _shown(parser):
            takes = "" if action.nargs == 0 else " -r"
            values = f" -f -a {shlex.quote(' '.join(map(str, action.choices)))}" if action.choices else ""
            for word in action.option_strings:
                if word.startswith("--"):
                    yield f"{when} -l {word[2:]}{takes}{values} -d {shlex.quote(_plain(action.help))}"


# -- manual -------------------------------------------------------------------------------------------------


def manual() -> str:
    """The manual page of section 1, as roff."""
    found = list(commands())
    _, root = found[0]
    date = time.strftime("%Y-%m-%d", time.gmtime())
    lines = [f'.TH DEVICE-AGENT 1 "{date}" "device-agent {__version__}" "User Commands"']
    lines += [
        ".SH NAME",
        r"device\-agent \- sensors and actuators of this board as an agent on the Blocks Network",
    ]
    lines += [".SH SYNOPSIS", ".B device-agent", "[--config FILE] COMMAND …", ".SH DESCRIPTION"]
    lines += [_roff(root.description or ""), ".SH OPTIONS", *_options(root), ".SH COMMANDS"]
    for path, parser in found[1:]:
        about = parser.description or _about(dict(found)[path[:-1]], path[-1])
        usage = " ".join(parser.format_usage().split()).removeprefix("usage: ")
        lines += [f".SS {_roff(' '.join(path))}", _roff(about), ".P", f".I {_roff(usage)}"]
        lines += _options(parser, but=("help", "config"))
    lines += [".SH EXIT STATUS"]
    lines += [line for code, text in EXIT_CODES.items() for line in (".TP", f".B {code}", _roff(text))]
    lines += [".SH FILES", ".TP", f".B {DEFAULT_CONFIG}", FILE, ".SH ENVIRONMENT", VARIABLES]
    return "\n".join(lines) + "\n"


def _about(parser: argparse.ArgumentParser, name: str) -> str:
    """The line of help of a command in the parser above it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return next((_plain(one.help) for one in action._choices_actions if one.dest == name), "")
    return ""


def _options(parser: argparse.ArgumentParser, but: Sequence[str] = ("help",)) -> Iterator[str]:
    for action in _shown(parser):
        if isinstance(action, argparse._SubParsersAction) or action.dest in but:
            continue
        values = f"{{{','.join(map(str, action.choices))}}}" if action.choices else action.dest.upper()
        takes = "" if action.nargs == 0 else f" {action.metavar or values}"
        names = ", ".join(f"{word}{takes}" for word in action.option_strings) or takes.strip()
        yield from (".TP", f".B {_roff(names)}", _roff(_plain(action.help)))


def _plain(text: str | None) -> str:
    return " ".join((text or "").replace("%%", "%").split())


def _roff(text: str) -> str:
    """Text of a line: no hyphen is a dash, and no line begins as a request."""
    text = " ".join(text.split()).replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{text}" if text.startswith((".", "'")) else text
