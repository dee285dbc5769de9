"""Programs that own a camera and write JPEG to a pipe: `rpicam-*` (before: `libcamera-*`) and `v4l2-ctl`."""

import os
import re
import select
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from device_agent.driver import BadReading, DriverError, NoAnswer

if TYPE_CHECKING:
    from device_agent_drivers.camera import CameraConfig

JPEG_BEGIN, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
FRAME_MAX_BYTES = 4_000_000
# A message of the network holds some of these; a whole frame would not fit into one.
CHUNK_BYTES = 4096
READ_BYTES = 65_536
# Listing takes the slowest board two seconds, a still two beyond the time in which the exposure settles.
LIST_LIMIT_S = 8.0
STILL_LIMIT_S = 12.0
END_LIMIT_S = 1.0
TELLING_BYTES = 300

LISTED = re.compile(r"^\s*([0-9]+) : ", re.MULTILINE)


class Program(Protocol):
    """One way to a camera: the command lines that write a still, or frames for ever, to standard output."""

    def find(self) -> None:
        """Whether camera and program are there. Raises NoAnswer, DriverError."""

    def still(self) -> Sequence[str]: ...

    def frames(self) -> Sequence[str]: ...


class Rpicam:
    """Raspberry Pi's own programs, for cameras on the ribbon cable."""

    def __init__(self, wanted: "CameraConfig") -> None:
        self._wanted = wanted

    @staticmethod
    def name_of(what: str) -> str | None:
        """The installed program for "still" or "vid"."""
        return next(
            (path for kind in ("rpicam", "libcamera") if (path := shutil.which(f"{kind}-{what}"))), None
        )

    def find(self) -> None:
        still = self.name_of("still")
        if still is None or self.name_of("vid") is None:
            raise DriverError(
                "rpicam-still and rpicam-vid are not installed: apt-get install rpicam-apps-lite"
            )
        listed = LISTED.findall(
            output_of((still, "--list-cameras"), LIST_LIMIT_S, both=True).decode("latin-1")
        )
        if str(self._wanted.camera) not in listed:
            known = ", ".join(dict.fromkeys(listed)) or "none"
            raise NoAnswer(
                f"there is no camera {self._wanted.camera}; there are: {known}. Check its ribbon cable"
            )

    def still(self) -> Sequence[str]:
        wanted = self._wanted
        settle = ("--timeout", f"{wanted.settle_s * 1000:.0f}")
        size = self._size(wanted.width, wanted.height, wanted.quality)
        return (self.name_of("still") or "rpicam-still", *settle, "--encoding", "jpg", *size)

    def frames(self) -> Sequence[str]:
        wanted = self._wanted
        pace = ("--timeout", "0", "--codec", "mjpeg", "--flush", "--framerate", f"{wanted.frames_per_s:g}")
        size = self._size(wanted.frame_width, wanted.frame_height, wanted.frame_quality)
        return (self.name_of("vid") or "rpicam-vid", *pace, *size)

    def _size(self, width: int, height: int, quality: int) -> tuple[str, ...]:
        return (
            *("--camera", str(self._wanted.camera), "--nopreview"),
            *("--width", str(width), "--height", str(height), "--quality", str(quality)),
            *(("--rotation", "180") if self._wanted.upside_down else ()),
            *("--output", "-"),
        )


class V4l2:
    """`v4l2-ctl`, for USB cameras: those that compress by themselves, as nearly all do."""

    def __init__(self, wanted: "CameraConfig") -> None:
        self._wanted = wanted

    def find(self) -> None:
        device = self._wanted.device
        if shutil.which("v4l2-ctl") is None:
            raise DriverError("v4l2-ctl is not installed: apt-get install v4l-utils")
        if self._wanted.upside_down:
            raise DriverError("`upside_down` is not possible with v4l2: turn the camera")
        if not os.path.exists(device):
            raise NoAnswer(f"there is no {device}; check the camera's cable, and `v4l2-ctl --list-devices`")
        formats = output_of(("v4l2-ctl", "--device", device, "--list-formats"), LIST_LIMIT_S)
        if b"MJPG" not in formats:
            raise DriverError(f"{device} gives no MJPEG: take another of the camera's devices, or camera")

    def still(self) -> Sequence[str]:
        wanted = self._wanted
        # Frames that are passed over while the exposure settles; most cameras give 30 a second.
        skip = (f"--stream-skip={wanted.settle_s * 30:.0f}", "--stream-count=1")
        return self._stream(wanted.width, wanted.height, *skip)

    def frames(self) -> Sequence[str]:
        wanted = self._wanted
        return self._stream(wanted.frame_width, wanted.frame_height, f"--set-parm={wanted.frames_per_s:g}")

    def _stream(self, width: int, height: int, *more: str) -> tuple[str, ...]:
        size = f"--set-fmt-video=width={width},height={height},pixelformat=MJPG"
        return ("v4l2-ctl", "--device", self._wanted.device, size, *more, "--stream-mmap", "--stream-to=-")


class Simulated:
    """A test picture with a moving bar and the number of the frame."""

    def __init__(self, wanted: "CameraConfig") -> None:
        self._wanted = wanted

    def find(self) -> None:
        pass

    def still(self) -> Sequence[str]:
        return self._program(self._wanted.width, self._wanted.height, 0.0)

    def frames(self) -> Sequence[str]:
        return self._program(self._wanted.frame_width, self._wanted.frame_height, self._wanted.frames_per_s)

    @staticmethod
    def _program(width: int, height: int, frames_per_s: float) -> tuple[str, ...]:
        return (
            sys.executable,
            "-m",
            "device_agent_drivers.simulated.camera",
            str(width),
            str(height),
            str(frames_per_s),
        )


def output_of(words: Sequence[str], limit_s: float, *, both: bool = False) -> bytes:
    """What a program writes, with `both` also to standard error. Raises NoAnswer, which quotes it."""
    name = os.path.basename(words[0])
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise NoAnswer(f"{name} gave nothing within {limit_s:g} s; is the camera's cable firm?") from None
    except OSError as error:
        raise DriverError(f"{name} cannot be started: {error.strerror}") from error
    if done.returncode:
        raise NoAnswer(f"{name} ended with {done.returncode}: {told(done.stderr)}")
    return done.stdout + done.stderr if both else done.stdout


def still_of(program: Program, settle_s: float) -> bytes:
    """One JPEG picture. Raises NoAnswer, BadReading, DriverError."""
    words = program.still()
    pictures = Cutter().feed(output_of(words, settle_s + STILL_LIMIT_S), whole=True)
    if not pictures:
        raise BadReading(f"{os.path.basename(words[0])} gave no JPEG picture")
    return pictures[-1]


def told(errors: bytes) -> str:
    """The end of a program's output, on one line."""
    return " ".join(errors[-TELLING_BYTES:].decode("utf-8", "replace").split()) or "it said nothing"


class Cutter:
    """Splits a stream into whole JPEG pictures; other bytes are skipped."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes, *, whole: bool = False) -> list[bytes]:
        """The pictures that became complete. `whole`: `data` is one, perhaps with a thumbnail inside."""
        rest = self._rest + data
        pictures = []
        while (begin := rest.find(JPEG_BEGIN)) >= 0:
            end = rest.rfind(JPEG_END) if whole else rest.find(JPEG_END, begin)
            if end < begin:
                break
            pictures.append(rest[begin : end + len(JPEG_END)])
            rest = rest[end + len(JPEG_END) :]
        if begin < 0:
            begin = max(0, len(rest) - len(JPEG_BEGIN) + 1)
        self._rest = b"" if len(rest) - begin > FRAME_MAX_BYTES else rest[begin:]
        return pictures


class Frames:
    """A `Source`: frames from a program at work, in chunks, as long as it is not closed."""

    def __init__(self, words: Sequence[str]) -> None:
        """Starts the program. Raises DriverError."""
        self._name = os.path.basename(words[0])
        try:
            self._process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        except OSError as error:
            raise DriverError(f"{self._name} cannot be started: {error.strerror}") from error
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._out, self._err = self._process.stdout.fileno(), self._process.stderr.fileno()
        self._epoll = select.epoll()
        for fd in (self._out, self._err):
            os.set_blocking(fd, False)
            self._epoll.register(fd, select.EPOLLIN)
        self._errors = b""
        self._cutter = Cutter()
        self.latest = b""
        """The last whole frame."""

    def fileno(self) -> int:
        return self._epoll.fileno()

    def drain(self) -> Sequence[bytes]:
        if self._epoll.closed:
            return ()
        errors = self._read(self._err)
        if errors == b"":
            with suppress(OSError):
                self._epoll.unregister(self._err)
        self._errors = (self._errors + (errors or b""))[-TELLING_BYTES:]
        data = self._read(self._out)
        if data is None:
            return ()
        if not data:
            raise NoAnswer(f"{self._name} ended and gives no more frames: {told(self._errors)}")
        chunks = []
        for frame in self._cutter.feed(data):
            self.latest = frame
            chunks += [frame[at : at + CHUNK_BYTES] for at in range(0, len(frame), CHUNK_BYTES)]
        return chunks

    @staticmethod
    def _read(fd: int) -> bytes | None:
        try:
            return os.read(fd, READ_BYTES)
        except BlockingIOError:
            return None

    def close(self) -> None:
        """Tells the program to end and waits for nothing; `reap` does."""
        if not self._epoll.closed:
            self._epoll.close()
            self._process.terminate()
            for pipe in (self._process.stdout, self._process.stderr):
                if pipe is not None:
                    pipe.close()

    def reap(self) -> None:
        """See the program end, so that the camera is free again. Belongs to the bus's thread."""
        self.close()
        try:
            self._process.wait(END_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(END_LIMIT_S)
