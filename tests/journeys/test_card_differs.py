"""A published card that is not the configuration's any more is noticed at the next join, once."""

import json
import os
import subprocess
import sys
from typing import Any

from device_agent.testing.network import NetworkThread
from support.deployment import World
from support.waiting import LIMIT_S


def publish(world: World) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "device_agent", "--config", str(world.config), "publish", "--yes", "--json"],
        env={**os.environ, "BLOCKS_API_KEY": "bk_device"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S * 2,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_a_card_that_differs_is_said_with_the_command(net: NetworkThread, new_world: Any) -> None:
    world = new_world()
    assert publish(world)["published"]
    world.start()
    assert not world.daemon.logged("card_differs")
    assert world.daemon.stop() == 0
    text = world.config.read_text()
    world.config.write_text(text.replace('tags = ["greenhouse"]', 'tags = ["greenhouse", "roses"]'))
    world.start()
    (said,) = [entry for entry in world.daemon.events() if entry["event"] == "card_differs"]
    assert said["command"] == "device-agent publish"
    assert said["changes"] == ["~ tags: 1 items → 2 items"]
    assert publish(world)["changes"] == said["changes"]
    assert world.daemon.stop() == 0
    world.start()
    assert not world.daemon.logged("card_differs")
