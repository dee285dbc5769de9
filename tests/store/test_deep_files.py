"""Files of a thousand brackets, which Python's parser gives up with RecursionError, end no start."""

import os
from pathlib import Path

import pytest

from device_agent.clock import SystemClock
from device_agent.network.blocks.identity import IdentityFile
from device_agent.safety.emergency_stop import StopLatch

DEEP = b"[" * 100_000


def test_a_deep_identity_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "identity.json"
    path.write_bytes(DEEP)
    assert IdentityFile(path, "greenhouse").identity.instance_id.startswith("AG-greenhouse-")
    assert [entry.read_bytes() for entry in tmp_path.glob("identity.json.damaged-*")] == [DEEP]


def test_a_deep_latch_counts_as_set(tmp_path: Path) -> None:
    path = tmp_path / "latch"
    path.write_bytes(DEEP)
    latch = StopLatch(path)
    latch.load()
    assert latch.state == {"who": "a damaged file", "at_ms": None}


def test_a_huge_identity_is_set_aside_and_not_read(tmp_path: Path) -> None:
    path = tmp_path / "identity.json"
    path.touch()
    os.truncate(path, 10**12)
    assert IdentityFile(path, "greenhouse").identity.instance_id.startswith("AG-greenhouse-")


def test_a_deep_clock_memory_is_none(tmp_path: Path) -> None:
    path = tmp_path / "clock.json"
    path.write_bytes(DEEP)
    assert SystemClock(path).boot


@pytest.mark.parametrize(
    "said", ["7", "[]", '"x"', "{}", '{"who": 1, "at_ms": 2}', '{"who": "x", "at_ms": "y"}']
)
def test_a_latch_of_other_types_counts_as_set(tmp_path: Path, said: str) -> None:
    path = tmp_path / "latch"
    path.write_text(f'{{"set": {said}, "boot": 5}}')
    latch = StopLatch(path)
    latch.load()
    assert latch.state == {"who": "a damaged file", "at_ms": None}
