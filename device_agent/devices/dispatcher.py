"""Passes what devices report to its subscribers, in a fixed order."""

from collections.abc import Iterable, Sequence

from device_agent.records import Reading, ReadingSubscriber, Status


class Dispatcher(ReadingSubscriber):
    """Each subscriber has seen a reading before the next one does."""

    def __init__(self, subscribers: Iterable[ReadingSubscriber]) -> None:
        self.subscribers = tuple(subscribers)

    def __repr__(self) -> str:
        return f"<Dispatcher to {', '.join(type(one).__name__ for one in self.subscribers)}>"

    def on_reading(self, reading: Reading) -> None:
        for subscriber in self.subscribers:
            subscriber.on_reading(reading)

    def on_readings(self, readings: Sequence[Reading]) -> None:
        for subscriber in self.subscribers:
            subscriber.on_readings(readings)

    def on_status(self, status: Status) -> None:
        for subscriber in self.subscribers:
            subscriber.on_status(status)

    def on_bytes(self, device: str, data: bytes) -> None:
        for subscriber in self.subscribers:
            subscriber.on_bytes(device, data)
