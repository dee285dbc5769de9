"""Machines for the tests of the stores."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from support.outbox_machine import Machine


@pytest.fixture
async def machines(tmp_path: Path) -> AsyncIterator[Callable[..., "Machine"]]:
    """Makes machines and gives back what they hold."""
    made: list[Machine] = []

    def make(**options: Any) -> Machine:
        made.append(Machine(tmp_path / "machine", **options))
        return made[-1]

    yield make
    for machine in made:
        await machine.end()
