"""Tests against a real kernel with virtual hardware; each leaves no descriptor and no thread behind."""

import threading
from collections.abc import Iterator

import pytest

from support.virtual_hardware import Rig, descriptors, find_rig


@pytest.fixture(scope="session")
def rig() -> Rig:
    return find_rig()


@pytest.fixture(autouse=True)
def nothing_left_behind(rig: Rig) -> Iterator[None]:
    before, threads = descriptors(), set(threading.enumerate())
    yield
    left = {name: count for name, count in descriptors().items() if count > before.get(name, 0)}
    # lgpio's one thread and its FIFO last as long as the process
    started = [t.name for t in set(threading.enumerate()) - threads if t.name.startswith("bus-")]
    assert not left
    assert not started
