"""The latch and the line of the emergency stop, each by itself."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from device_agent.config.models import SafetyConfig
from device_agent.errors import Rejected
from device_agent.records import Flag, Reading
from device_agent.safety.emergency_stop import LATCH_BYTES, StopLatch, StopLine
from device_agent.store import mounts

CONFIG = SafetyConfig(stop_device="button", stop_point="active", stop_active=True)


@dataclass
class StubButton:
    online: bool = True
    latest: Reading | None = None


def line(**button: Any) -> StopLine:
    return StopLine(CONFIG, {"button": StubButton(**button)})  # type: ignore[dict-item]


def reading(active: bool | None, flag: Flag | None = None) -> Reading:
    return Reading("button", 0, {"active": active}, {} if flag is None else {"active": flag})


# -- the line ----------------------------------------


def test_a_line_that_is_read_bars_nothing() -> None:
    it = line(latest=reading(False))
    assert it.why_unreadable() == ""
    assert not it.is_active_now()


def test_the_configured_level_is_the_pressed_one() -> None:
    assert line(latest=reading(True)).is_active_now()
    inverted = SafetyConfig(stop_device="button", stop_point="active", stop_active=False)
    assert StopLine(inverted, {"button": StubButton(latest=reading(False))}).is_active_now()  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("button", "why"),
    [
        ({"latest": None}, "is not there"),
        ({"latest": reading(False), "online": False}, "is not there"),
        ({"latest": reading(None)}, "is null"),
        ({"latest": reading(False, Flag.STALE)}, "is stale"),
    ],
)
def test_a_line_that_cannot_be_read_says_why(button: dict[str, Any], why: str) -> None:
    assert why in line(**button).why_unreadable()


def test_a_device_that_does_not_exist_yet_cannot_be_read() -> None:
    assert "is not there" in StopLine(CONFIG, {}).why_unreadable()


def test_without_a_line_nothing_is_barred() -> None:
    without = StopLine(SafetyConfig(), {})
    assert without.why_unreadable() == ""
    assert not without.is_active_now()


# -- the latch ----------------------------------------


def test_a_new_latch_is_free_and_its_file_exists_from_then_on(tmp_path: Path) -> None:
    latch = StopLatch(tmp_path / "stop")
    latch.load()
    latch.check()
    assert (tmp_path / "stop").stat().st_size == LATCH_BYTES
    assert repr(latch) == "<StopLatch free>"


def test_a_set_latch_refuses_before_it_is_saved_and_after_a_restart(tmp_path: Path) -> None:
    latch = StopLatch(tmp_path / "stop")
    latch.load()
    latch.set("the owner", 1000)
    with pytest.raises(Rejected, match="the owner") as refused:
        latch.check()
    assert refused.value.code == "not_allowed"
    latch.save()
    again = StopLatch(tmp_path / "stop")
    again.load()
    assert again.state == {"who": "the owner", "at_ms": 1000}
    again.clear()
    again.save()
    latch.load()
    latch.check()


@pytest.mark.parametrize("damage", [b"", b"{", b"\0" * LATCH_BYTES, b"[]", json.dumps({"x": 1}).encode()])
def test_a_damaged_file_counts_as_set(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "stop").write_bytes(damage)
    latch = StopLatch(tmp_path / "stop")
    latch.load()
    with pytest.raises(Rejected, match="a damaged file"):
        latch.check()


def test_a_free_latch_with_an_unreadable_line_refuses(tmp_path: Path) -> None:
    latch = StopLatch(tmp_path / "stop", line(latest=None))
    latch.load()
    with pytest.raises(Rejected, match="cannot be read"):
        latch.check()
    assert latch.state is None


# -- a stop that persists ----------------------------------------


@pytest.fixture
def in_memory() -> Iterator[Path]:
    folder = Path("/dev/shm")
    if not mounts.in_memory(folder):
        pytest.skip("/dev/shm is no tmpfs here")
    with TemporaryDirectory(dir=folder) as name:
        yield Path(name)


def after_load(path: Path, *, boot: str, persists: bool) -> StopLatch:
    latch = StopLatch(path, boot=boot, persists=persists)
    latch.load()
    return latch


def test_a_stop_that_persists_counts_as_set_where_there_is_no_record(tmp_path: Path) -> None:
    latch = after_load(tmp_path / "stop", boot="b1", persists=True)
    with pytest.raises(Rejected, match="no record"):
        latch.check()
    after_load(tmp_path / "stop", boot="b1", persists=True)
    latch.clear()
    latch.save()
    if mounts.in_memory(tmp_path):
        pytest.skip("the folder for temporary files is in memory here")
    # On a disk the release holds over reboots.
    assert after_load(tmp_path / "stop", boot="b2", persists=True).state is None


def test_a_record_in_memory_holds_for_one_boot(in_memory: Path) -> None:
    """An overlay shows after a reboot what lay below it: an old file that says "free"."""
    after_load(in_memory / "stop", boot="b1", persists=False)
    assert after_load(in_memory / "stop", boot="b1", persists=True).state is None
    after = after_load(in_memory / "stop", boot="b2", persists=True)
    with pytest.raises(Rejected, match="in memory"):
        after.check()
    after.clear()
    after.save()
    assert after_load(in_memory / "stop", boot="b2", persists=True).state is None
    assert after_load(in_memory / "stop", boot="b3", persists=False).state is None
