"""Scenes, ended in order."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.guarded_daemon import Service, new_scene, scene
from support.mosquitto import broker


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path)
    yield service
    service.close()
