"""Whoever reads the log leaves or stands still: the daemon goes on driving, limiting and stopping."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from device_agent.errors import AgentError
from device_agent.operate.control_socket import ask
from support.guarded_daemon import VALVE, VALVE_SAFE, Scene
from support.waiting import LIMIT_S, until


def begun(scene: Scene, stderr: int, max_on_s: int = 600) -> "subprocess.Popen[bytes]":
    limit = f"safe = false\nmax_on_s = {max_on_s}"
    text = scene.config.read_text().replace("safe = false\nevery_s = 1", limit, 1)
    scene.config.write_text(text)
    words = ["run", "--simulate", "--log", "json", "--config", str(scene.config)]
    return subprocess.Popen(
        [sys.executable, "-m", "device_agent", *words],
        env={**os.environ, **scene.environment, "LOG_LEVEL": "debug"},
        stderr=stderr,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def told(folder: Path, op: str, **members: Any) -> Any:
    return ask(folder / "state" / "run" / "control.sock", {"op": op, **members}, LIMIT_S)["result"]


def online(folder: Path) -> bool:
    try:
        return all(device["state"] == "online" for device in told(folder, "status")["devices"])
    except (AgentError, OSError):
        return False


def left() -> int:
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def full_device() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def full_pipe() -> int:
    """Its other end stays open and is never read."""
    _, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, b" " * 4096)
    except BlockingIOError:
        os.set_blocking(writing, True)
    return writing


@pytest.mark.parametrize("log", [left, full_device, full_pipe])
def test_it_drives_limits_and_stops_without_a_reader(log: Callable[[], int], new_scene: Any) -> None:
    scene = new_scene(10.0)
    fd = log()
    process = begun(scene, fd, max_on_s=2)
    os.close(fd)
    try:
        until(lambda: online(scene.folder), "every device online")
        answer = told(scene.folder, "set", device="valve", values={"on": True})
        assert answer["state"] == "done"
        until(lambda: scene.levels(VALVE)[-1] == (VALVE_SAFE, "daemon"), "the end of max_on_s")
        # A bus that comes back is logged, too.
        scene.fault("broker", "unplug")
        until(lambda: not online(scene.folder), "the broker is missed")
        scene.heal("broker")
        until(lambda: online(scene.folder), "every device online again")
        assert told(scene.folder, "set", device="lamp", values={"on": False})["state"] == "done"
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT_S) == 0
        assert not (scene.folder / "state" / "run" / "control.sock").exists()
        assert [entry for entry in scene.levels(VALVE) if entry[1] == "guard"] == []
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(LIMIT_S)


def test_the_guard_acts_and_reports_without_a_reader(new_scene: Any) -> None:
    scene = new_scene(10.0)
    fd = full_pipe()
    process = begun(scene, fd)
    os.close(fd)
    try:
        until(lambda: online(scene.folder), "every device online")
        assert told(scene.folder, "set", device="valve", values={"on": True})["state"] == "done"
    finally:
        process.kill()
        process.wait(LIMIT_S)
    scene.wait_guard(1, bus="pins", line=VALVE, level=VALVE_SAFE)
    scene.start()
    until(lambda: any(entry["device"] == "valve" for entry in scene.journal()), "its report in the Journal")


def test_ctrl_c_ends_the_agent_in_order_though_its_tee_dies_first(new_scene: Any) -> None:
    scene = new_scene(10.0)
    reading, writing = os.pipe()
    process = begun(scene, writing)
    os.close(writing)
    tee = subprocess.Popen(
        ["tee", scene.folder / "copy"], stdin=reading, stdout=subprocess.DEVNULL, process_group=0
    )
    os.close(reading)
    try:
        until(lambda: online(scene.folder), "every device online")
        assert told(scene.folder, "set", device="valve", values={"on": True})["state"] == "done"
        copy = scene.folder / "copy"
        until(lambda: b'"ready"' in copy.read_bytes(), "the log, through tee")
        # A terminal's Ctrl-C reaches both, and which one first is chance: here the unlucky order.
        tee.send_signal(signal.SIGINT)
        assert tee.wait(LIMIT_S) == -signal.SIGINT
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT_S) == 0
        assert [entry for entry in scene.levels(VALVE) if entry[1] != "reset"][-1] == (VALVE_SAFE, "daemon")
        assert not (scene.folder / "state" / "run" / "control.sock").exists()
    finally:
        for child in (process, tee):
            if child.poll() is None:
                child.kill()
                child.wait(LIMIT_S)
