"""The crash log: what survives a killed process, and what damage hides."""

import os
import stat
import zlib
from pathlib import Path
from typing import Any

import pytest

from device_agent.store.outbox import crash_log
from device_agent.store.outbox.crash_log import CrashLog

RECORDS: list[list[Any]] = [["a", "s", 1, b"\x00{}", None], ["k", "s", 1], ["l", "s", 2, 3, 4]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.log"


def written(path: Path, boot: str = "boot") -> CrashLog:
    """A log with all records: the first in its snapshot, the others appended."""
    log = CrashLog(path, boot)
    assert log.begin(RECORDS[:1])
    for record in RECORDS[1:]:
        assert log.write(record)
    return log


def test_all_records_come_back_in_order(path: Path) -> None:
    written(path)
    assert CrashLog(path, "boot").read() == RECORDS


def test_it_is_for_its_owner_only(path: Path) -> None:
    written(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_none_without_a_log_and_for_one_of_another_boot(path: Path) -> None:
    assert CrashLog(path, "boot").read() is None
    written(path)
    assert CrashLog(path, "next boot").read() is None


@pytest.mark.parametrize(
    "content", [b"", bytes(7), bytes(8), bytes(range(155, 255))], ids=["empty", "seven", "eight", "noise"]
)
def test_a_file_that_is_no_log_is_none(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert CrashLog(path, "boot").read() is None


@pytest.mark.parametrize("zeros", [8, 16, 4096])
def test_zeros_at_its_end_end_the_list(path: Path, zeros: int) -> None:
    """What a power cut leaves where the file's length was written and its content was not."""
    written(path)
    path.write_bytes(path.read_bytes() + bytes(zeros))
    assert CrashLog(path, "boot").read() == RECORDS


@pytest.mark.parametrize("body", [b"\x01", b"\xc1", b"\x91" * 3000 + b"\x00"], ids=["number", "none", "deep"])
def test_a_whole_record_that_is_no_list_ends_the_list(path: Path, body: bytes) -> None:
    written(path)
    header = len(body).to_bytes(4, "little") + zlib.crc32(body).to_bytes(4, "little")
    path.write_bytes(path.read_bytes() + header + body)
    assert CrashLog(path, "boot").read() == RECORDS


def test_wherever_it_is_cut_the_whole_records_before_are_read(path: Path) -> None:
    written(path)
    whole = path.read_bytes()
    counts = []
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        records = CrashLog(path, "boot").read()
        assert records is None or records == RECORDS[: len(records)]
        counts.append(-1 if records is None else len(records))
    assert counts == sorted(counts)
    assert set(counts) == {-1, 0, 1, 2}


def test_a_changed_bit_ends_the_list_before_its_record(path: Path) -> None:
    written(path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert CrashLog(path, "boot").read() == RECORDS[:-1]


def test_a_snapshot_replaces_what_was_there(path: Path) -> None:
    log = written(path)
    assert log.begin([["n", "s", 5, 6]])
    assert log.write(["k", "s", 7])
    assert CrashLog(path, "boot").read() == [["n", "s", 5, 6], ["k", "s", 7]]
    assert os.listdir(path.parent) == ["outbox.log"]


def test_nothing_is_written_before_begin_and_after_end(path: Path) -> None:
    log = CrashLog(path, "boot")
    assert not log.write(["k", "s", 1])
    log = written(path)
    log.end()
    assert not path.exists()
    assert not log.write(["k", "s", 1])
    log.end()


def test_an_incomplete_record_is_taken_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = written(path)
    real = os.write
    monkeypatch.setattr(crash_log.os, "write", lambda file, data: real(file, data[: len(data) // 2]))
    assert not log.write(["a", "s", 2, b"x" * 100, None])
    assert log.failures == 1
    monkeypatch.undo()
    assert log.write(["k", "s", 9])
    assert CrashLog(path, "boot").read() == [*RECORDS, ["k", "s", 9]]


def test_a_log_that_cannot_be_replaced_goes_on(path: Path) -> None:
    log = written(path)
    path.with_suffix(".new").mkdir()
    assert not log.begin([])
    assert log.write(["k", "s", 9])
    assert CrashLog(path, "boot").read() == [*RECORDS, ["k", "s", 9]]


def test_it_has_grown_when_much_more_than_its_snapshot_was_appended(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crash_log, "ROTATE_BYTES", 1000)
    log = written(path)
    assert not log.grown
    log.write(["a", "s", 3, b"x" * 2000, None])
    assert log.grown
    log.begin([["a", "s", 3, b"x" * 2000, None]])
    assert not log.grown


def test_as_a_whole_it_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no snapshot takes its place; and one that somebody made larger is read so far."""
    log = written(path)
    size_bytes = path.stat().st_size
    assert log.write(["more"])
    monkeypatch.setattr(crash_log, "TOTAL_MAX_BYTES", size_bytes)
    assert not log.write(["even more"])
    assert log.failures == 1
    assert CrashLog(path, "boot").read() == RECORDS
