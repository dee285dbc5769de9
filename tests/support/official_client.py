"""What the official client leaves behind must not fail a later test.

It leaves the connections of its long polls to the garbage collector, which finds them during some later test.
"""

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest


class OfficialSocket(socket.socket):
    """A connection of the official client: only of these does pyproject.toml ignore that they stay open."""

    __slots__ = ()


@contextlib.contextmanager
def official_sockets() -> Iterator[None]:
    """What httpx connects inside, which nothing but the official client uses, is an `OfficialSocket`."""
    import httpcore

    connect = httpcore.SyncBackend.connect_tcp

    def connect_marked(backend: Any, *args: Any, **options: Any) -> Any:
        stream = connect(backend, *args, **options)
        stream.get_extra_info("socket").__class__ = OfficialSocket
        return stream

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpcore.SyncBackend, "connect_tcp", connect_marked)
        yield


def excuse_requests(items: list[pytest.Item]) -> None:
    """On the network stand-in (fixture `net`) its single requests may stay unclosed, too, and so may their
    other ends in the stand-in."""
    for item in items:
        if "net" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.filterwarnings("ignore:unclosed <s:ResourceWarning"))
            item.add_marker(pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning"))
