"""What holds for all tests."""

import importlib.util
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from support.official_client import excuse_requests

# A shell that starts the tests in the background has them, and the programs they start, ignore SIGINT.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Where tests of hardware run alone it need not be installed.
if importlib.util.find_spec("hypothesis") is not None:
    from hypothesis import settings

    # How long one example takes says how busy the machine is, not whether it is right.
    settings.register_profile("any-machine", deadline=None)
    settings.load_profile("any-machine")


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a short name: daemons have their sockets inside, and the path of one holds at most 107 bytes."""
    return tmp_path_factory.mktemp(re.sub(r"\W", "_", request.node.name)[:10])


@pytest.fixture(autouse=True)
def default_log() -> Iterator[None]:
    """A command that a test carries out in this process sets the log; the next test has the usual one."""
    yield
    structlog.reset_defaults()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    excuse_requests(items)
