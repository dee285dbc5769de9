"""Deployments, and one whose link can be cut."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from device_agent.testing.network import NetworkThread
from support.callers import alice, caller, net
from support.delegations import sessions, start
from support.deployment import World, new_world
from support.outages import heard, outage


@pytest.fixture(scope="module")
def world(net: NetworkThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A running daemon that the tests of a module share."""
    with World(tmp_path_factory.mktemp("world"), net) as made:
        made.start()
        yield made
