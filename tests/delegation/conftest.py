"""A scripted service for a delegation."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.scripted_service import Service


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    made = Service(tmp_path)
    yield made
    await made.thread.close()
