"""A camera: a still picture by the action `snapshot`, and frames as a stream of bytes (MJPEG).

A program that knows the camera does the work: `rpicam-still` and `rpicam-vid` on a Raspberry Pi's ribbon
cable, `v4l2-ctl` for a USB camera. Frames are taken only while somebody watches. A channel of the network
carries some 100 kB a second: larger or more frames than the default ones come late, and the oldest are lost.
"""

import time
from collections.abc import Mapping
from typing import Any, Literal

from device_agent.bus.core import Source
from device_agent.driver import (
    Action,
    DriverConfig,
    DriverError,
    File,
    Listener,
    NoAnswer,
    NoBus,
    Value,
    Values,
)
from device_agent.schema import Field
from device_agent_drivers.camera_programs import (
    STILL_LIMIT_S,
    Frames,
    Program,
    Rpicam,
    Simulated,
    V4l2,
    still_of,
)

SETTLE_MAX_S = 5.0


class CameraConfig(DriverConfig):
    driver: Literal["camera"] = "camera"
    backend: Literal["auto", "rpicam", "v4l2"] = Field(
        "auto", description="rpicam: on the ribbon cable; v4l2: USB. auto: the first that has a camera."
    )
    camera: int = Field(0, ge=0, le=9, description="rpicam: number of the camera.")
    device: str = Field(
        "/dev/video0", pattern="^/dev/", description="v4l2: device file, best /dev/v4l/by-id/…."
    )
    width: int = Field(1280, ge=16, le=9152, description="Of a still picture.")
    height: int = Field(960, ge=16, le=6944, description="Of a still picture.")
    quality: int = Field(85, ge=1, le=100, description="rpicam: of a still picture.")
    upside_down: bool = Field(False, description="rpicam: turn the picture round.")
    settle_s: float = Field(
        1.0, ge=0, le=SETTLE_MAX_S, description="For the exposure, before a still picture."
    )
    frame_width: int = Field(320, ge=16, le=1920, description="Of the frames of the bytes stream, pixels.")
    frame_height: int = Field(240, ge=16, le=1080, description="Likewise.")
    frames_per_s: float = Field(2.0, ge=0.1, le=30, description="Frames a second.")
    frame_quality: int = Field(50, ge=1, le=100, description="rpicam: of frames.")


class Camera(Listener[CameraConfig, NoBus]):
    """While frames are taken, `snapshot` is the latest of them: a camera has one owner at a time."""

    bytes_side = True
    on_demand = True
    call_limit_s = STILL_LIMIT_S + SETTLE_MAX_S + 1.0
    actions = (Action("snapshot", moves=False, gives="image/jpeg", description="A still picture."),)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._program: Program | None = None
        self._frames: Frames | None = None

    def open(self) -> None:
        self.close()
        self._program = self._found()

    def _found(self) -> Program:
        config = self.config
        if self.bus.simulated:
            return Simulated(config)
        known: dict[str, Program] = {"rpicam": Rpicam(config), "v4l2": V4l2(config)}
        faults = []
        for name in known if config.backend == "auto" else (config.backend,):
            try:
                known[name].find()
                return known[name]
            except (NoAnswer, DriverError) as error:
                if config.backend != "auto":
                    raise
                faults.append(f"{name}: {error}")
        raise NoAnswer("; ".join(faults))

    def close(self) -> None:
        frames, self._frames = self._frames, None
        if frames is not None:
            frames.reap()

    def listen(self) -> Source:
        self.close()
        self._frames = Frames(self._opened().frames())
        return self._frames

    def feed(self, chunk: bytes) -> tuple[Values, ...]:
        """No readings: the bytes themselves are the message."""
        return ()

    def do(self, action: str, args: Mapping[str, Value]) -> File:
        if action != "snapshot":
            super().do(action, args)
        name = f"camera-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}.jpg"
        if self._frames is not None and self._frames.latest:
            return File(name, "image/jpeg", self._frames.latest)
        if self._frames is not None:
            raise NoAnswer("the camera has just begun to give frames: ask again in a moment")
        return File(name, "image/jpeg", still_of(self._opened(), self.config.settle_s))

    def _opened(self) -> Program:
        if self._program is None:
            raise DriverError("the camera is not open")
        return self._program
