"""Each test on each place: every installed driver, or the devices of the rig file in $DEVICE_AGENT_WIRED."""

import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.contract_places import Place, places


def _rig() -> Path | None:
    named = os.environ.get("DEVICE_AGENT_WIRED")
    return Path(named) if named else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "place" in metafunc.fixturenames:
        found = list(places(_rig()))
        metafunc.parametrize(
            "place", [make for _, make in found], ids=[name for name, _ in found], indirect=True
        )


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    gc.collect()
    threads, descriptors = set(threading.enumerate()), _open()
    made: Place = request.param()
    yield made
    made.close()
    left = [thread for thread in set(threading.enumerate()) - threads if thread.name.startswith("bus-")]
    for thread in left:
        thread.join(10.0)
    assert not [thread.name for thread in left if thread.is_alive()]
    gc.collect()
    assert not _open() - descriptors, "a descriptor is left open"


def _open() -> set[str]:
    """What this process holds open of hardware, sockets and events; not what the test runner itself opens."""
    held = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue
        if target.startswith(("/dev/", "/sys/", "anon_inode:gpio")) and target != "/dev/null":
            held.add(target)
    return held
