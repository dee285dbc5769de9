"""What is ready, as the service manager is told."""

from device_agent.operate.systemd import Notifier


def test_it_is_ready_from_the_word_to_the_stop_whether_or_not_somebody_listens() -> None:
    notifier = Notifier({})
    assert not notifier.ready
    for message, ready in (("READY=1", True), ("WATCHDOG=1", True), ("STOPPING=1", False)):
        notifier.tell(message)
        assert notifier.ready is ready
