"""What shells complete, and the manual page: both know every command."""

import argparse
import shutil
import subprocess

import pytest

from device_agent.cli import COMMANDS
from device_agent.cli.completion import commands, completion_text, manual

LIMIT_S = 60


def completed(*words: str) -> set[str]:
    """What bash would offer for the last of these words."""
    ask = 'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _device_agent; printf "%s\\n" "${COMPREPLY[@]}"'
    script = f"{completion_text('bash')}\n{ask}"
    done = subprocess.run(
        ["bash", "-c", script, "bash", "device-agent", *words],
        capture_output=True, text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("words", "some", "none"),
    [
        (("",), {*COMMANDS, "--config"}, {"watch", "--json"}),
        (("mon",), {"monitor"}, {"status"}),
        (("history", "--"), {"--from", "--every", "--format", "--config"}, {"--simulate"}),
        (("history", "--format", ""), {"table", "json", "csv", "png"}, {"--from"}),
        (("run", "--log", "j"), {"json"}, {"text"}),
        (("call", "greenhouse_7", ""), {"watch", "read", "drive"}, {"monitor"}),
        (("call", "greenhouse_7", "watch", "--f"), {"--for", "--format"}, {"--from"}),
        (("--config", "x.toml", "service", ""), {"install", "uninstall", "status"}, {"run"}),
        (("completion", ""), {"bash", "zsh", "fish"}, {"run"}),
    ],
)
def test_bash_offers_what_may_follow(words: tuple[str, ...], some: set[str], none: set[str]) -> None:
    offered = completed(*words)
    assert some <= offered
    assert not none & offered


def test_the_other_shells_have_the_same() -> None:
    assert completion_text("zsh").endswith(completion_text("bash"))
    fish = completion_text("fish")
    for path, _ in commands():
        assert not path or f"-a {path[-1]} " in fish
    for shell in ("zsh", "fish"):
        if shutil.which(shell):
            done = subprocess.run(
                [shell, "-n"], input=completion_text(shell).encode(), timeout=LIMIT_S, check=False
            )
            assert done.returncode == 0


def test_the_manual_describes_each_command_and_option() -> None:
    page = manual()
    for path, parser in commands():
        assert not path or f"\n.SS {' '.join(path)}\n".replace("-", r"\-") in page
        for action in parser._actions:
            if not action.option_strings or action.help == argparse.SUPPRESS or action.dest == "help":
                continue
            for word in action.option_strings:
                assert word.replace("-", r"\-") in page, (path, word)
            assert action.help, f"{path}: {action.dest} has no help"
    if shutil.which("groff"):
        done = subprocess.run(
            ["groff", "-man", "-Tutf8", "-K", "utf8", "-ww", "-z"],
            input=page, capture_output=True, text=True, timeout=LIMIT_S, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
