"""What was sent on one channel and may be asked for again (`replay`)."""

from collections import deque

from device_agent.store.outbox.event import Event

SENT_KEEP_BYTES = 65_536


class SentEvents:
    """The newest events that the network has accepted."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._bytes = 0

    def add(self, event: Event) -> None:
        if event.seq is None:
            return
        self._events.append(event)
        self._bytes += len(event.data)
        while self._bytes > SENT_KEEP_BYTES:
            self._bytes -= len(self._events.popleft().data)

    def since(self, seq: int) -> list[Event]:
        """Those with this number or a later one."""
        return [event for event in self._events if event.seq is not None and event.seq >= seq]
