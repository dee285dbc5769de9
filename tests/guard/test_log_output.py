"""A log neither raises nor blocks; what it dropped is counted and said later."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_agent.guard.log_output import WAITING_MAX_BYTES, LogOutput, marked, to_journal
from support.waiting import LIMIT_S

LINE = "x" * 99 + "\n"


def told(count: int) -> str:
    return f"dropped {count}\n"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def test_a_reader_that_stands_still_delays_nobody_and_is_told_what_it_missed(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    output = LogOutput(told, writing)
    count = 2 * WAITING_MAX_BYTES // len(LINE)
    done = threading.Event()

    def write() -> None:
        for _ in range(count):
            output.write(LINE)
        done.set()

    threading.Thread(target=write, daemon=True).start()
    assert done.wait(LIMIT_S)
    output.close(0.01)  # returns although nobody reads
    text = b""
    while text.count(LINE.encode()) + _told_in(text) < count:
        text += os.read(reading, 65_536)
    assert 0 < _told_in(text) < count
    assert text.count(b"dropped") == 1


def _told_in(text: bytes) -> int:
    return sum(int(line.split()[1]) for line in text.split(b"\n")[:-1] if line.startswith(b"dropped"))


def test_a_full_disk_and_a_reader_that_left_raise_nothing() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    for fd in (writing, os.open("/dev/full", os.O_WRONLY)):
        output = LogOutput(told, fd)
        output.write(LINE)
        output.close(LIMIT_S)
        os.close(fd)


def test_it_goes_on_where_there_is_room_again(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    first = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    fd = os.open(path, os.O_WRONLY)
    output = LogOutput(told, fd)
    os.close(first)
    for _ in range(3):
        output.write(LINE)
    output.close(LIMIT_S)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    output.write("again\n")
    output.close(LIMIT_S)
    assert os.read(reading, 4096) == b"dropped 3\nagain\n"
    os.close(reading)
    os.close(fd)


def test_a_reader_that_does_not_block_gets_all(pipe: tuple[int, int]) -> None:
    """A terminal whose other end is non-blocking shares that with us."""
    reading, writing = pipe
    os.set_blocking(writing, False)
    output = LogOutput(told, writing)
    for _ in range(1000):
        output.write(LINE)
    text = b""
    while len(text) < 1000 * len(LINE):
        text += os.read(reading, 65_536)
    assert text == LINE.encode() * 1000


def test_a_half_surrogate_is_written_escaped(pipe: tuple[int, int]) -> None:
    output = LogOutput(told, pipe[1])
    output.write("\ud800\n")
    assert os.read(pipe[0], 100) == b"\\ud800\n"


def test_each_line_for_journald_has_its_priority() -> None:
    assert marked("one\ntwo", "error", for_journal=True) == "<3>one\n<3>two"
    assert marked("one\ntwo", "error", for_journal=False) == "one\ntwo"


def test_journald_is_recognised_by_its_stream(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    status = os.fstat(pipe[1])
    assert not to_journal(pipe[1])
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    assert to_journal(pipe[1])


def test_closed_standard_streams_are_not_given_to_the_next_file() -> None:
    code = (
        "import os; from device_agent.guard.log_output import open_standard_streams as fill; fill();"
        "raise SystemExit(os.open('/dev/null', os.O_RDONLY))"
    )
    done = subprocess.run(
        ["sh", "-c", f'exec "{sys.executable}" -c "{code}" <&- >&- 2>&-'], timeout=LIMIT_S, check=False
    )
    assert done.returncode == 3
