"""Scenes, ended in order."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.guarded_daemon import Scene, Service
from support.mosquitto import broker


@pytest.fixture
def new_scene(tmp_path: Path) -> Iterator[Callable[..., Scene]]:
    scenes: list[Scene] = []

    def make(timeout_s: float = 1.0) -> Scene:
        scenes.append(Scene(tmp_path, timeout_s))
        return scenes[-1]

    yield make
    for scene in scenes:
        scene.close()


@pytest.fixture
def scene(new_scene: Callable[..., Scene]) -> Scene:
    """A daemon at work with a patient guard, so that a busy machine does not look like a hang."""
    made = new_scene(10.0)
    made.start()
    return made


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path)
    yield service
    service.close()
