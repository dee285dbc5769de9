"""`rpicam-still`, `rpicam-vid` and `v4l2-ctl` of a camera that is no camera, in a folder for the PATH.

They take the real programs' options, refuse those they do not know, hold the camera alone, write real JPEG to
standard output, and note what they were asked for in `asked`.
"""

import argparse
import fcntl
import os
import sys
import time
from pathlib import Path

SCRIPT = """#!{python}
import sys
sys.path[:0] = {path!r}
from support.fake_camera import main
main({name!r}, {folder!r})
"""
NAMES = ("rpicam-still", "rpicam-vid", "v4l2-ctl")


def install(folder: Path, *names: str) -> Path:
    """A folder of these programs; `cameras` in it says how many there are."""
    folder.mkdir(exist_ok=True)
    for name in names:
        program = folder / name
        text = SCRIPT.format(
            python=sys.executable,
            path=[str(parent) for parent in Path(__file__).parents[1:3]],
            name=name,
            folder=str(folder),
        )
        program.write_text(text)
        program.chmod(0o755)
    (folder / "cameras").write_text("1")
    return folder


def main(name: str, folder: str) -> None:
    with (Path(folder) / "asked").open("a") as asked:
        asked.write(" ".join([name, *sys.argv[1:]]) + "\n")
    (v4l2 if name == "v4l2-ctl" else rpicam)(name, Path(folder))


def rpicam(name: str, folder: Path) -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--list-cameras", action="store_true")
    for option in ("camera", "width", "height", "quality", "timeout"):
        parser.add_argument(f"--{option}", type=int)
    for option in ("output", "rotation"):
        parser.add_argument(f"--{option}")
    parser.add_argument("--nopreview", action="store_true")
    if name == "rpicam-vid":
        parser.add_argument("--codec", choices=["mjpeg"], required=False)
        parser.add_argument("--flush", action="store_true")
        parser.add_argument("--framerate", type=float)
    else:
        parser.add_argument("--encoding", choices=["jpg"])
    given = parser.parse_args()
    cameras = int((folder / "cameras").read_text())
    if given.list_cameras:
        # The real ones list on standard output or standard error, by version
        lines = [f"{n} : imx219 [3280x2464 10-bit] (/base/soc/i2c0mux)" for n in range(cameras)]
        print("\n".join(["Available cameras", "---", *lines]) if lines else "No cameras available!")
        return
    if given.camera >= cameras:
        sys.exit("ERROR: *** no cameras available ***")
    assert (given.output, given.nopreview) == ("-", True)
    hold(folder)
    if name == "rpicam-still":
        picture(given.width, given.height, 7)
    frames(given.width, given.height, given.framerate)


def v4l2(name: str, folder: Path) -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--device", required=True)
    parser.add_argument("--list-formats", action="store_true")
    for option in ("set-fmt-video", "set-parm", "stream-to"):
        parser.add_argument(f"--{option}")
    for option in ("stream-skip", "stream-count"):
        parser.add_argument(f"--{option}", type=int, default=0)
    parser.add_argument("--stream-mmap", action="store_true")
    given = parser.parse_args()
    if given.list_formats:
        formats = [
            "'YUYV' (YUYV 4:2:2)",
            *(["'MJPG' (Motion-JPEG, compressed)"] if cameras_of(folder) else []),
        ]
        print("\n".join(f"\t[{n}]: {text}" for n, text in enumerate(formats)))
        return
    size = dict(part.split("=") for part in given.set_fmt_video.split(","))
    assert (size["pixelformat"], given.stream_to, given.stream_mmap) == ("MJPG", "-", True)
    hold(folder)
    sys.stderr.write("<" * (given.stream_skip + 1) + "\n")
    if given.stream_count == 1:
        picture(int(size["width"]), int(size["height"]), 7)
    frames(int(size["width"]), int(size["height"]), float(given.set_parm))


def cameras_of(folder: Path) -> int:
    return int((folder / "cameras").read_text())


def hold(folder: Path) -> None:
    """One owner at a time."""
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit("ERROR: *** failed to acquire camera /base/soc/i2c0mux ***")


def picture(width: int, height: int, number: int) -> None:
    from device_agent_drivers.simulated.camera import picture as made

    sys.stdout.buffer.write(made(width, height, number))
    sys.stdout.flush()
    sys.exit(0)


def frames(width: int, height: int, frames_per_s: float) -> None:
    from device_agent_drivers.simulated.camera import picture as made

    number = 0
    while True:
        sys.stdout.buffer.write(made(width, height, number))
        sys.stdout.flush()
        number += 1
        time.sleep(1 / frames_per_s)
