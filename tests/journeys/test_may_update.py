"""Whether an updater may restart the daemon: not while an actuator is driven."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.deployment import World
from support.waiting import LIMIT_S


def may_update(config: Path, *words: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "device_agent", "--config", str(config), "may-update", "--json", *words],
        capture_output=True, text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout)


def test_not_while_an_actuator_is_driven(new_world: Callable[..., World]) -> None:
    world = new_world()
    assert may_update(world.config) == (0, {"may": True, "why": []}), "no daemon runs"
    daemon = world.start()
    assert may_update(world.config)[0] == 0
    daemon.ask("set", device="valve", values={"on": True})
    code, answer = may_update(world.config, "--wait", "1")
    assert (code, answer["may"]) == (75, False)
    (why,) = answer["why"]
    assert why.startswith("valve is driven")
    assert why.endswith(" s at most"), "max_on_s ends it"
    daemon.ask("safe")
    assert may_update(world.config) == (0, {"may": True, "why": []})
