"""`pytest hil`: the scenarios on a simulated board; `pytest hil --rig rig.toml`: on what that file names."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rig_file
from rigs import Rig, SimulatedRig
from scene import Scene, stage

from device_agent.testing.network import NetworkThread
from support.callers import alice, caller, net
from support.deployment import World
from support.official_client import excuse_requests

_links = itertools.count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rig", type=Path, help="a rig file; without one, a simulated board")


@pytest.fixture(scope="module")
def rig(request: pytest.FixtureRequest) -> Rig:
    path = request.config.getoption("--rig")
    if path is None:
        return SimulatedRig()
    from kernel_rig import KernelRig

    try:
        return KernelRig(rig_file.load(path))
    except ValueError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="module")
def place(
    rig: Rig, net: NetworkThread, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[World, str]]:
    """The daemon's world for the scenarios of a file, and the link that it alone uses."""
    link = f"device-{next(_links)}"
    with stage(rig, net, tmp_path_factory.mktemp("hil"), link) as world:
        yield world, link


@pytest.fixture
def begin(request: pytest.FixtureRequest, rig: Rig, alice: Any) -> Callable[..., Scene]:
    """`begin("door", "relay")`: the daemon at work and a session; skips where the rig lacks one of these."""

    def make(*needs: str) -> Scene:
        rig.need(*needs)
        world, link = request.getfixturevalue("place")
        return Scene(world, rig, link, alice)

    return make


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    excuse_requests(items)
