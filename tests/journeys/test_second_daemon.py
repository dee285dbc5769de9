"""Somebody types `device-agent run` where the service runs already."""

from collections.abc import Callable

from support.deployment import World
from support.processes import Daemon
from support.waiting import LIMIT_S


def test_a_second_daemon_touches_nothing_of_the_first(new_world: Callable[..., World]) -> None:
    """It ends with a sentence before it opens stores, guard or hardware; the first goes on unharmed."""
    world = new_world()
    first = world.start()
    assert world.board is not None
    state = world.folder / "state"
    # What is written to it after another process has begun it anew is lost.
    log = state / "run" / "outbox.log"
    before = log.stat().st_ino
    second = Daemon(
        world.folder,
        world.config,
        {"BLOCKS_API_KEY": "bk_device", "DEVICE_AGENT_BOARD": str(world.board.socket)},
    )
    assert second.process.wait(LIMIT_S) == 1
    said = second.log_path.read_text()
    assert "another daemon answers" in said
    assert "Traceback" not in said
    assert [entry["event"] for entry in second.events()] == []
    assert log.stat().st_ino == before
    assert first.device("valve")["state"] == "online"
