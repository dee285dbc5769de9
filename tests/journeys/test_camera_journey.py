"""A camera seen from the network: a picture as an artifact, frames as bytes while somebody watches."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from support.callers import pipe, question, result, stream
from support.deployment import World
from support.waiting import LIMIT_S, until

MORE = """
read = ["user:user_alice"]
[devices.eye]
driver = "camera"
frames_per_s = 10
frame_width = 160
frame_height = 120
[streams.eye]
direction = "outbound"
format = "bytes"
devices = ["eye"]
"""


def programs_of(world: World) -> list[str]:
    """The camera's programs that the daemon runs now."""
    pid = world.daemon.process.pid
    children = Path(f"/proc/{pid}/task").glob("*/children")
    found = [child for path in children for child in path.read_text().split()]
    lines = [
        Path(f"/proc/{child}/cmdline").read_bytes() for child in found if os.path.exists(f"/proc/{child}")
    ]
    return [line.decode() for line in lines if b"simulated.camera" in line]


def test_a_picture_and_frames(new_world: Callable[..., World], caller: Callable[..., Any]) -> None:
    world = new_world(more=MORE)
    world.start()
    alice = caller("alice")

    session = question(alice, {"op": "do", "device": "eye", "action": "snapshot"})
    assert session.terminal["state"] == "completed", result(session)
    again = alice.connect(session.task_id)
    references = until(lambda: len(again.list_artifacts()) == 2 and again.list_artifacts(), "two artifacts")
    answer = json.loads(again.download_artifact(references[0]).data)
    assert (answer["op"], answer["state"]) == ("do", "done")
    assert references[1].mime_type == "image/jpeg"
    picture = again.download_artifact(references[1])
    again.close()
    image = Image.open(io.BytesIO(picture.data))
    assert (image.format, image.size) == ("JPEG", (1280, 960))

    # Who may not read the device does not get its picture
    refused = question(caller("bob"), {"op": "do", "device": "eye", "action": "snapshot"})
    assert refused.terminal["state"] == "failed"
    assert len(refused.list_artifacts()) == 1

    assert programs_of(world) == []
    watching = pipe(alice, {"streams": ["eye"]})
    eye = stream(watching, "eye")
    until(lambda: b"".join(eye.events).count(b"\xff\xd9") >= 3, "three frames")
    frame = b"".join(eye.events)
    first = frame[frame.index(b"\xff\xd8\xff") : frame.index(b"\xff\xd9") + 2]
    assert Image.open(io.BytesIO(first)).size == (160, 120)
    assert len(programs_of(world)) == 1
    watching.cancel()
    watching.wait_for_terminal(LIMIT_S)
    until(lambda: programs_of(world) == [], "the camera is let go")
    assert world.daemon.device("eye")["state"] == "online"


def test_a_picture_at_the_board(new_world: Callable[..., World], tmp_path: Path) -> None:
    world = new_world(more=MORE)
    world.start()
    out = tmp_path / "still.jpg"
    words = ["--config", str(world.config), "do", "eye", "snapshot", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "device_agent", *words], capture_output=True, check=False, timeout=LIMIT_S
    )
    assert done.stdout.decode() == f"done: {out}, {out.stat().st_size} bytes\n", done.stderr.decode()
    with Image.open(out) as picture:
        assert picture.size == (1280, 960)
