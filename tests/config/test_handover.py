"""The configuration as another process hands it over."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from device_agent.config import handover, load
from device_agent.config.handover import Handover, checked
from device_agent.errors import ConfigError, NotReady

CONFIG = """
[agent]
name = "handed"
tags = ["greenhouse"]
[buses.pins]
kind = "gpio"
chip = "gpiochip0"
[buses.meter]
kind = "serial"
port = { vid = 0x0403, pid = 0x6001 }
[devices.lamp]
driver = "gpio-output"
bus = "pins"
line = 4
safe = false
only_while = { scale = { weight = { maximum = 5 } } }
[devices.scale]
driver = "serial-lines"
bus = "meter"
pattern = '(?P<weight>[0-9.]+)'
stale_after_s = { weight = 60 }
points = { weight = { unit = "g" } }
[streams.all]
direction = "bidirectional"
devices = ["lamp", "scale"]
[access.devices.lamp]
drive = ["local:mcp"]
"""

# What the daemon is: models hold what is handed over, and pydantic is not there.
DAEMON = """
import sys
from pathlib import Path
from device_agent import schema
schema.hold_only()
from device_agent.card.agent_card import build
from device_agent.config.handover import Handover
config = Handover(Path(sys.argv[1])).config()
print(config)
print(build(config))
assert config == Handover(Path(sys.argv[1])).config()
assert "pydantic" not in sys.modules
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "agent.toml"
    file.write_text(CONFIG)
    return file


def test_it_is_the_configuration_that_was_checked(path: Path) -> None:
    assert Handover(path).config() == load(path)


def test_a_process_without_models_has_the_same_values(path: Path) -> None:
    from device_agent.card.agent_card import build

    done = subprocess.run(
        [sys.executable, "-c", DAEMON, path], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    config, card = done.stdout.splitlines()
    assert config == str(load(path))
    assert card == str(build(load(path)))


def test_every_fault_of_the_file_comes_over(path: Path) -> None:
    path.write_text(CONFIG.replace("line = 4", "line = -4").replace('name = "handed"', 'name = "?"'))
    with pytest.raises(ConfigError) as here:
        load(path)
    for ask in (lambda: Handover(path).config(), lambda: asyncio.run(checked(path))):
        with pytest.raises(ConfigError) as there:
            ask()
        assert there.value.problems == here.value.problems
        assert len(there.value.problems) == 2
        assert not isinstance(there.value, NotReady)


async def test_a_check_that_died_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "_command", lambda path: (sys.executable, "-c", "import os; os._exit(9)"))
    with pytest.raises(NotReady, match="could not be checked: the process that checks it ended with 9"):
        await checked(path)
    with pytest.raises(NotReady, match="ended with 9"):
        Handover(path).config()


async def test_a_check_that_hangs_is_given_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "_command", lambda path: (sys.executable, "-c", "input()"))
    monkeypatch.setattr(
        handover,
        "_command",
        lambda path: (sys.executable, "-c", "import threading; threading.Event().wait()"),
    )
    monkeypatch.setattr(handover, "CHECK_LIMIT_S", 0.2)
    with pytest.raises(NotReady, match=r"within 0\.2 s"):
        await checked(path)
    with pytest.raises(NotReady, match=r"within 0\.2 s"):
        Handover(path).config()
