"""README and the pages for users are true: commands exist, configurations pass `check`, programs run."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from device_agent import registry
from device_agent.cli import demo_world, parser
from device_agent.testing.network.sdk import sdk_environment

ROOT = Path(__file__).parents[2]
PAGES = ("calling", "publishing", "configuring", "delegations", "drivers", "simulating", "mqtt", "page")
TEXT = "\n".join(
    path.read_text() for path in (ROOT / "README.md", *(ROOT / "docs" / f"{page}.md" for page in PAGES))
)
LIMIT_S = 120


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


WHOLE = [block for block in blocks("toml") if "[agent]" in block]
PARTS = [block for block in blocks("toml") if "[agent]" not in block and "[devices." in block]
COMMANDS = [line for block in blocks("sh") for line in block.splitlines() if line]


def check(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = folder / "agent.toml"
    path.write_text(text)
    command = [sys.executable, "-m", "device_agent", "--config", str(path), "check"]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)


@pytest.mark.parametrize("block", WHOLE)
def test_whole_configurations_are_right(block: str, tmp_path: Path) -> None:
    done = check(block, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "is right" in done.stdout


@pytest.mark.parametrize("block", PARTS)
def test_parts_of_configurations_are_right_in_a_whole_one(block: str, tmp_path: Path) -> None:
    (device,) = tomllib.loads(block)["devices"]
    stream = f'[streams.more]\ndirection = "outbound"\ndevices = ["{device}"]\n'
    done = check(f"{WHOLE[0]}\n{block}\n{stream}", tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_delegation_is_right_in_a_whole_configuration(tmp_path: Path) -> None:
    (block,) = [block for block in blocks("toml") if "[delegations." in block]
    done = check(f"{WHOLE[0]}\n{block}", tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("device-agent ")])
def test_commands_are_understood(line: str) -> None:
    words = shlex.split(line.removesuffix(" &"))[1:]
    args = parser(words).parse_args(words)
    assert callable(args.run)


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\bmake ([a-z-]+)\b", TEXT)) - {"sure"}))
def test_make_knows_its_targets(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target


def test_the_table_of_drivers_names_installed_ones() -> None:
    table = (ROOT / "docs" / "drivers.md").read_text().partition("`device-agent drivers` lists")[0]
    assert sorted(re.findall(r"`([a-z0-9-]+)`", table)) == sorted(registry.names())


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


def test_the_driver_is_the_one_that_is_tested() -> None:
    (driver,) = [block for block in blocks("python") if "Sensor[" in block]
    assert driver == (ROOT / "tests" / "third_party" / "acme_tmp117" / "acme_tmp117.py").read_text()


def test_the_caller_in_python_runs_as_it_stands(calls: Any) -> None:
    (program,) = [block for block in blocks("python") if "TaskClient" in block]
    program = program.replace("greenhouse_7", demo_world.AGENT)
    network = sdk_environment(calls.world.cdm_url, f"127.0.0.1:{calls.world.port}", demo_world.KEY)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=LIMIT_S,
        env={**os.environ, **network}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "done {'on': True} verified: True None" in done.stdout
    assert "climate {'temperature':" in done.stdout
    assert done.stdout.splitlines()[-1] == "canceled"
