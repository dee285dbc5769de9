"""The camera: still pictures and frames, from programs that stand in for the real ones."""

import io
import os
import select
import time
from pathlib import Path

import pytest
from PIL import Image

from device_agent.driver import BadReading, DriverError, NoAnswer, NoBus
from device_agent.testing import check_driver
from device_agent_drivers.camera import Camera, CameraConfig
from device_agent_drivers.camera_programs import CHUNK_BYTES, Cutter, Frames
from device_agent_drivers.simulated.camera import picture
from support.fake_camera import NAMES, install

LIMIT_S = 30.0


def camera(*, simulated: bool = False, **options) -> Camera:
    return Camera(CameraConfig.model_validate(options), NoBus(simulated=simulated))


def frames_of(source: Frames, count: int) -> list[bytes]:
    """So many whole frames of a source."""
    deadline_s = time.monotonic() + LIMIT_S
    cutter, frames = Cutter(), []
    while len(frames) < count:
        assert time.monotonic() < deadline_s, "no frames"
        if select.select([source.fileno()], [], [], 1.0)[0]:
            for chunk in source.drain():
                assert len(chunk) <= CHUNK_BYTES
                frames += cutter.feed(chunk)
    return frames


def opened(jpeg: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(jpeg))
    image.load()
    return image


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = install(tmp_path / "bin", *NAMES)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def asked(programs: Path) -> list[str]:
    return (programs / "asked").read_text().splitlines()


def test_contract():
    check_driver(Camera)


@pytest.mark.parametrize(("width", "height"), [(320, 240), (64, 48), (100, 37), (16, 16)])
def test_the_test_picture_is_a_jpeg_that_others_can_read(width, height):
    image = opened(picture(width, height, 3))
    assert (image.format, image.size, image.mode) == ("JPEG", (width, height), "L")
    assert {grey for _, grey in image.getcolors()} <= {40, 80, 120, 160, 200, 255}
    assert picture(width, height, 4) != picture(width, height, 3)


def test_the_bar_moves_with_the_number():
    assert [opened(picture(320, 240, n)).getpixel((8 * 20 + 4, 239)) for n in (17, 18, 20, 21)] == [
        120, 200, 200, 120,
    ]  # fmt: skip


# --- rpicam ----------------------------------------------------------------------------------------------


def test_a_still_picture(programs):
    it = camera(width=640, height=480, settle_s=0.25, upside_down=True)
    it.open()
    file = it.do("snapshot", {})
    assert file.mime_type == "image/jpeg"
    assert file.name.endswith(".jpg")
    assert opened(file.data).size == (640, 480)
    assert asked(programs)[-1] == (
        "rpicam-still --timeout 250 --encoding jpg --camera 0 --nopreview --width 640 --height 480 "
        "--quality 85 --rotation 180 --output -"
    )


def test_frames_and_a_snapshot_meanwhile(programs):
    it = camera(frames_per_s=20, frame_width=64, frame_height=48)
    it.open()
    source = it.listen()
    frames = frames_of(source, 3)
    assert [opened(frame).size for frame in frames] == [(64, 48)] * 3
    assert frames[0] != frames[1]
    # The camera has one owner, so it is the latest frame; afterwards the camera is free for a real still
    assert opened(it.do("snapshot", {}).data).size == (64, 48)
    source.close()
    source.close()
    assert list(source.drain()) == []
    it.close()
    assert opened(it.do("snapshot", {}).data).size == (1280, 960)


def test_frames_begin_again_and_leave_nothing_open(programs):
    it = camera(frames_per_s=20, frame_width=64, frame_height=48)
    it.open()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        source = it.listen()
        frames_of(source, 1)
        source.close()
        it.close()
    it.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_there_is_no_camera(programs):
    (programs / "cameras").write_text("0")
    with pytest.raises(NoAnswer, match="there is no camera 0; there are: none"):
        camera(backend="rpicam").open()
    (programs / "cameras").write_text("1")
    with pytest.raises(NoAnswer, match="there is no camera 1; there are: 0"):
        camera(backend="rpicam", camera=1).open()


def test_a_camera_that_is_in_use_says_so(programs):
    first, second = camera(frames_per_s=20), camera()
    first.open()
    second.open()
    frames_of(first.listen(), 1)
    with pytest.raises(NoAnswer, match=r"rpicam-still ended with 1: ERROR.* failed to acquire camera"):
        second.do("snapshot", {})
    first.close()


def test_a_program_that_ends_is_told(programs):
    it = camera()
    it.open()
    (programs / "cameras").write_text("0")  # pulled out between
    source = it.listen()
    with pytest.raises(NoAnswer, match=r"rpicam-vid ended and gives no more frames: ERROR: .* no cameras"):
        frames_of(source, 1)
    it.close()


def test_what_is_no_picture(programs):
    (programs / "rpicam-still").write_text(
        "#!/bin/sh\n[ $1 = --list-cameras ] && echo '0 : x' || echo hello\n"
    )
    it = camera()
    it.open()
    with pytest.raises(BadReading, match="rpicam-still gave no JPEG picture"):
        it.do("snapshot", {})


# --- v4l2 ------------------------------------------------------------------------------------------------


def test_a_usb_camera(programs, tmp_path):
    (programs / "rpicam-still").unlink()
    it = camera(device="/dev/null", settle_s=0.2, frames_per_s=20, frame_width=64, frame_height=48)
    it.open()
    assert opened(it.do("snapshot", {}).data).size == (1280, 960)
    size = "--set-fmt-video=width=1280,height=960,pixelformat=MJPG"
    assert asked(programs)[-1] == (
        f"v4l2-ctl --device /dev/null {size} --stream-skip=6 --stream-count=1 --stream-mmap --stream-to=-"
    )
    assert len(frames_of(it.listen(), 2)) == 2
    it.close()


def test_what_a_usb_camera_cannot_do(programs):
    with pytest.raises(DriverError, match="upside_down"):
        camera(backend="v4l2", device="/dev/null", upside_down=True).open()
    with pytest.raises(NoAnswer, match="there is no /dev/video99"):
        camera(backend="v4l2", device="/dev/video99").open()
    (programs / "cameras").write_text("0")
    with pytest.raises(DriverError, match="/dev/null gives no MJPEG"):
        camera(backend="v4l2", device="/dev/null").open()


def test_nothing_is_installed(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoAnswer, match=r"rpicam: .*apt-get install rpicam-apps-lite; v4l2: .*v4l-utils"):
        camera().open()


# --- cutting, simulation ---------------------------------------------------------------------------------


def test_pictures_are_cut_wherever_the_chunks_end():
    pictures = [picture(48, 48, n) for n in range(4)]
    stream = b"garbage \xff\xd9" + b"".join(pictures) + b"\xff\xd8\xffhalf"
    for size in (1, 2, 7, 1000, len(stream)):
        cutter = Cutter()
        cut = [one for at in range(0, len(stream), size) for one in cutter.feed(stream[at : at + size])]
        assert cut == pictures


def test_a_picture_with_a_small_one_in_it_is_one():
    small = picture(16, 16, 1)
    whole = b"\xff\xd8\xff\xe1" + small + picture(48, 48, 1)[2:]
    assert Cutter().feed(b"x" + whole + b"\n", whole=True) == [whole]


def test_noise_never_fills_the_memory():
    cutter = Cutter()
    for _ in range(300):
        assert cutter.feed(b"\xff\xd8\xff" + bytes(20_000)) == []
        assert len(cutter._rest) < 4_100_000


def test_simulated():
    it = camera(simulated=True, frames_per_s=20, frame_width=64, frame_height=48)
    it.open()
    assert opened(it.do("snapshot", {}).data).size == (1280, 960)
    assert len(frames_of(it.listen(), 2)) == 2
    it.close()
