"""A driver by somebody else, in a package of its own: installed by pip, and from then on one of all.

The package, `acme_tmp117`, is what a third party would write; nothing of this project knows its name.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from device_agent.testing.network import NetworkThread
from support.callers import pipe, stream
from support.deployment import CONFIG, World
from support.waiting import LIMIT_S, until

PACKAGE = Path(__file__).parent / "acme_tmp117"
LINES_MAX = 25
INSTALL_LIMIT_S = 120
# The journeys' agent with this thermometer in place of its sensor.
OURS = 'driver = "bme280"\nbus = "i2c1"\naddress = 0x76'
THEIRS = 'driver = "acme-tmp117"\nbus = "i2c1"\naddress = 0x48'


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of programs that find the package, as pip has installed it, without an index."""
    folder = tmp_path_factory.mktemp("third_party")
    source, target = folder / "source", folder / "site"
    shutil.copytree(PACKAGE, source, ignore=shutil.ignore_patterns("__pycache__"))
    words = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", *words, "--target", target, source],
        capture_output=True,
        text=True,
        timeout=INSTALL_LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    path = os.pathsep.join(filter(None, [str(target), os.environ.get("PYTHONPATH")]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", path)
        yield {**os.environ}


@pytest.fixture
def cli(installed: dict[str, str], tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`device-agent` with the configuration that names the foreign driver."""
    config = tmp_path / "agent.toml"
    text = CONFIG.replace(OURS, THEIRS).format(
        cdm_url="http://127.0.0.1:9/config.json",
        origin="127.0.0.1:9",
        folder=tmp_path,
        concurrency=8,
        rate_hz=0,
    )
    assert "acme-tmp117" in text
    config.write_text(text)

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return run("-m", "device_agent", "--config", str(config), *words, environment=installed)

    return call


def run(*words: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, timeout=60, check=False, env=environment
    )


def test_it_is_as_short_as_promised() -> None:
    lines = (PACKAGE / "acme_tmp117.py").read_text().splitlines()
    assert len([line for line in lines if line.strip()]) <= LINES_MAX


def test_it_is_listed_and_described(cli: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    listed = {entry["name"]: entry for entry in json.loads(cli("drivers", "--json").stdout)}
    assert listed["acme-tmp117"]["package"] == "acme-tmp117 1.2.0"
    assert listed["acme-tmp117"]["bus"] == "i2c"
    described = json.loads(cli("drivers", "describe", "acme-tmp117", "--json").stdout)
    assert [(point["name"], point["unit"]) for point in described["points"]] == [("temperature", "Cel")]
    assert "address" in {option["name"] for option in described["options"]}


def test_its_configuration_is_checked(
    cli: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = cli("check")
    assert done.returncode == 0, done.stderr
    config = tmp_path / "agent.toml"
    config.write_text(config.read_text().replace("address = 0x48", "address = 0x50"))
    done = cli("check")
    assert done.returncode == 78
    assert "devices.climate.address" in done.stdout + done.stderr


def test_its_points_are_on_the_card(cli: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = cli("card")
    assert done.returncode == 0, done.stderr
    card = json.dumps(json.loads(done.stdout))
    assert '"temperature"' in card
    assert '"humidity"' not in card


def test_it_keeps_the_contract_of_a_driver(installed: dict[str, str]) -> None:
    program = (
        "from acme_tmp117 import Tmp117; from device_agent.testing import check_driver; check_driver(Tmp117)"
    )
    done = run("-c", program, environment=installed)
    assert done.returncode == 0, done.stderr


def test_it_passes_the_strictest_type_check(installed: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="mypy is not installed")
    words = ["-m", "mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path}"]
    done = run(*words, str(PACKAGE / "acme_tmp117.py"), environment=installed)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_official_caller_gets_its_readings(
    installed: dict[str, str], net: NetworkThread, alice: Any, tmp_path: Path
) -> None:
    with World(tmp_path, net, config=CONFIG.replace(OURS, THEIRS)) as world:
        world.start()
        session = pipe(alice, {"streams": ["control"], "devices": ["climate"]})
        control = stream(session, "control")
        assert control.wait("reading", device="climate")["values"] == {"temperature": 25}
        world.board.do("chip", "climate", "temperature=-3.5")
        control.wait("reading", device="climate", values={"temperature": -3.5})
        world.board.do("fault", "i2c1", "unplug", "--device", "climate")
        control.wait("status", device="climate", state="offline")
        world.board.do("heal")
        until(lambda: control.of("status", device="climate", state="online"), "the thermometer back")
        session.cancel()
        assert session.wait_for_terminal(LIMIT_S)["state"] == "canceled"
