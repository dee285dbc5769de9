"""A real broker for the tests of the door."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.mosquitto import Broker


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    if shutil.which("mosquitto") is None:
        pytest.skip("mosquitto is not installed (apt-get install mosquitto)")
    broker = Broker(tmp_path)
    yield broker
    broker.stop()
