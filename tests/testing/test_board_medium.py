"""What all simulated buses share: timers, mailboxes, the record, what a fault does to bytes."""

import json
import random
import select
import threading
from pathlib import Path

import pytest

from device_agent.bus.mqtt import matches
from device_agent.errors import BusGone
from device_agent.testing.board.gpio import offset_of
from device_agent.testing.board.medium import Mailbox, Record, Timers, corrupted, flipped, noisy


def test_timers_run_in_order_and_with_their_due_time() -> None:
    timers, ran = Timers(), []
    for due_s in (3.0, 1.0, 2.0):
        timers.at(due_s, ran.append)
    timers.at(1.5, ran.append).cancel()
    assert timers.next_due_s() == 1.0
    timers.run_due(2.5)
    assert (ran, timers.next_due_s()) == ([1.0, 2.0], 3.0)


def test_a_timer_may_add_another_that_is_due_already() -> None:
    timers, ran = Timers(), []

    def again(due_s: float) -> None:
        ran.append(due_s)
        if due_s < 3:
            timers.at(due_s + 1, again)

    timers.at(1.0, again)
    timers.run_due(10.0)
    assert (ran, timers.next_due_s()) == ([1.0, 2.0, 3.0], None)


@pytest.fixture
def mailbox():
    box = Mailbox(threading.RLock(), 2)
    yield box
    box.close()


def readable(box: Mailbox) -> bool:
    return bool(select.select([box.fileno()], [], [], 0)[0])


def test_a_mailbox_is_readable_while_something_is_in_it(mailbox: Mailbox) -> None:
    assert not readable(mailbox)
    mailbox.put(b"a")
    assert readable(mailbox)
    assert mailbox.drain() == [b"a"]
    assert not readable(mailbox)
    assert mailbox.drain() == []


def test_a_full_mailbox_drops_the_oldest_and_counts(mailbox: Mailbox) -> None:
    for number in range(5):
        mailbox.put(number)
    assert (mailbox.drain(), mailbox.take_lost(), mailbox.take_lost()) == ([3, 4], 3, 0)


def test_an_ended_mailbox_is_emptied_first_and_stays_readable(mailbox: Mailbox) -> None:
    mailbox.put(b"last")
    mailbox.end("bus x was unplugged")
    mailbox.end("a second reason")
    assert mailbox.drain() == [b"last"]
    assert readable(mailbox)
    with pytest.raises(BusGone, match="bus x was unplugged"):
        mailbox.drain()


def test_a_closed_mailbox_gives_nothing(mailbox: Mailbox) -> None:
    mailbox.put(b"a")
    mailbox.close()
    mailbox.close()
    assert mailbox.drain() == []


def test_the_record_is_in_memory_and_in_its_file(tmp_path: Path) -> None:
    record = Record(tmp_path / "record")
    record.add(1.5, "pins", "daemon", line=4, level=1)
    record.add(2.0, "pins", "guard", line=4, level=0)
    lines = [json.loads(line) for line in (tmp_path / "record").read_text().splitlines()]
    assert lines == list(record.entries)
    assert lines[0] == {"t": 1.5, "bus": "pins", "line": 4, "level": 1, "by": "daemon"}
    record.close()
    record.add(3.0, "pins", "reset")
    assert len((tmp_path / "record").read_text().splitlines()) == 2


def test_what_faults_do_to_bytes() -> None:
    data = bytes(range(256)) * 4
    chance = random.Random(1)
    assert sum((a ^ b).bit_count() for a, b in zip(corrupted(data, chance), data, strict=True)) == 1
    assert corrupted(b"", chance) == b""
    assert len(flipped(data, chance)) == len(data)
    assert flipped(data, chance) != data
    assert len(noisy(data, chance)) > len(data)


@pytest.mark.parametrize(
    ("wanted", "topic", "fits"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/b/c", False),
        ("a/+", "a/b", True),
        ("a/+", "a", False),
        ("a/+", "a/b/c", False),
        ("+/b", "/b", True),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("#", "a/b", True),
        ("#", "$SYS/x", False),
        ("+/x", "$SYS/x", False),
        ("$SYS/#", "$SYS/x", True),
    ],
)
def test_topic_filters(wanted: str, topic: str, fits: bool) -> None:
    assert matches(wanted, topic) is fits


@pytest.mark.parametrize(
    ("line", "offset"),
    [(17, 17), ("17", 17), ("GPIO17", 17), ("gpio_4", 4), ("LED", None), ("GPIO", None), ("17x", None)],
)
def test_lines_by_number_or_name(line: int | str, offset: int | None) -> None:
    assert offset_of(line) == offset
