"""A real broker for the tests of the MQTT handle."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.mosquitto import Broker


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path)
    yield broker
    broker.stop()
