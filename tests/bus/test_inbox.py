"""The queue between a library's thread and the event loop."""

import os
import select
import threading

import pytest

from device_agent.bus.inbox import Inbox
from device_agent.errors import BusGone
from support.mosquitto import collected


def readable(inbox: Inbox) -> bool:
    poll = select.poll()
    poll.register(inbox.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def test_items_come_in_order_and_wake():
    inbox: Inbox[int] = Inbox(10)
    assert not readable(inbox)
    assert list(inbox.drain()) == []
    threading.Thread(target=lambda: [inbox.put(n) for n in range(5)]).start()
    assert collected(inbox, lambda got: len(got) == 5) == [0, 1, 2, 3, 4]
    assert not readable(inbox)
    inbox.close()


def test_the_oldest_makes_room_and_is_counted():
    inbox: Inbox[int] = Inbox(3)
    for number in range(10):
        inbox.put(number)
    assert (list(inbox.drain()), inbox.lost) == ([7, 8, 9], 7)
    inbox.close()


def test_bytes_are_bounded_too():
    inbox: Inbox[bytes] = Inbox(100, bytes_max=10, size_bytes=len)
    for item in (b"aaaa", b"bbbb", b"cccc", b"d" * 11, b"ee"):
        inbox.put(item)
    assert (list(inbox.drain()), inbox.lost) == ([b"ee"], 4)
    inbox.put(b"f" * 10)
    assert list(inbox.drain()) == [b"f" * 10]
    inbox.close()


def test_an_error_comes_after_what_waits_and_stays():
    inbox: Inbox[int] = Inbox(3)
    inbox.put(1)
    inbox.fail(BusGone("first"))
    inbox.fail(BusGone("second"))
    assert list(inbox.drain()) == [1]
    for _ in range(2):
        assert readable(inbox)
        with pytest.raises(BusGone, match="first"):
            inbox.drain()
    inbox.close()


def test_closed_is_silent_and_touches_no_foreign_descriptor():
    inbox: Inbox[int] = Inbox(3)
    number = inbox.fileno()
    inbox.close()
    inbox.close()
    read, write = os.pipe()
    try:
        assert number in (read, write)  # the number is taken by somebody else now
        inbox.put(1)
        inbox.fail(BusGone("late"))
        assert list(inbox.drain()) == []
    finally:
        os.close(read)
        os.close(write)
