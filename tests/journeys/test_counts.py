"""A meter's total goes on over a stop, a crash and a changed configuration."""

import json
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.deployment import HEAD, World
from support.waiting import until

CONFIG = (
    HEAD
    + """[buses.pins]
kind = "gpio"
chip = "pinctrl-bcm2835"
[devices.meter]
driver = "gpio-input"
bus = "pins"
line = 17
count = true
per_unit = 1000
start = 1234.5
unit.total = "kW.h"
"""
)


@pytest.fixture
def runtime() -> Iterator[Path]:
    """In memory, as under systemd."""
    folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder)


def test_a_total_goes_on(new_world: Callable[..., World], tmp_path: Path, runtime: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state" / "run").symlink_to(runtime)
    world = new_world(config=CONFIG)
    world.start()

    def read() -> dict[str, Any]:
        return world.daemon.ask("read", device="meter")  # type: ignore[no-any-return]

    def values() -> dict[str, Any]:
        return read()["values"]  # type: ignore[no-any-return]

    def pulses(number: int, total: int) -> None:
        for _ in range(number):
            world.board.do("pin", "pins", "17", "high")
            world.board.do("pin", "pins", "17", "low")
        until(lambda: values()["count"] == total, f"{total} pulses")

    pulses(3, 3)
    assert values()["total"] == 1234.503
    world.daemon.end()
    world.start()
    assert values()["count"] == 3, "after an orderly stop"
    assert "flags" not in read()
    pulses(4, 7)
    kept = runtime / "counts.json"
    until(
        lambda: kept.exists() and json.loads(kept.read_text())["devices"]["meter"]["count"] == 7, "it is kept"
    )
    world.daemon.process.kill()
    world.daemon.process.wait()
    world.start()
    assert values()["count"] == 7, "after a crash"
    assert values()["total"] == 1234.507
    assert read()["flags"] == {"count": "incomplete", "total": "incomplete"}
    text = world.config.read_text()
    world.config.write_text(text.replace("line = 17", "line = 17\nrate_window_s = 30"))
    world.daemon.process.send_signal(signal.SIGHUP)
    world.daemon.wait_logged("reloaded")
    until(lambda: world.daemon.device("meter")["state"] == "online", "it is opened again")
    pulses(1, 8)
    assert "flags" not in read()
    world.config.write_text(text.replace("1234.5", "2000"))
    world.daemon.process.send_signal(signal.SIGHUP)
    until(
        lambda: world.daemon.ask("read", device="meter").get("values", {}).get("total") == 2000.0,
        "another start begins anew",
    )


def test_a_power_cut_is_told(new_world: Callable[..., World], tmp_path: Path, runtime: Path) -> None:
    """What was in memory is gone; the count goes on from the disk and says that it may be behind."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    (state / "run").symlink_to(runtime)
    seldom = CONFIG.replace("[buses.pins]", "counts_every_s = 3600\n[buses.pins]", 1)
    world = new_world(config=seldom)

    def read() -> dict[str, Any]:
        return world.daemon.ask("read", device="meter")  # type: ignore[no-any-return]

    def pulse(total: int) -> None:
        world.board.do("pin", "pins", "17", "high")
        world.board.do("pin", "pins", "17", "low")
        until(lambda: read()["values"]["count"] == total, f"{total} pulses")

    world.start()
    pulse(1)
    world.daemon.end()
    world.start()
    on_disk = [state / "counts.json", state / "counts-2.json"]
    until(lambda: any('"ended": false' in p.read_text() for p in on_disk if p.exists()), "it is noted")
    pulse(2)
    world.daemon.process.kill()
    world.daemon.process.wait()
    (runtime / "counts.json").unlink(missing_ok=True)
    world.start()
    assert (read()["values"]["count"], read()["flags"]["count"]) == (1, "incomplete")
    rows = world.daemon.ask("history", devices=["meter"])["data"]
    assert b"incomplete" in rows, "the record has it too"
    pulse(2)
    assert "flags" not in read()
