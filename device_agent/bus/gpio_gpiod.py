"""GPIO through the kernel's character device, on gpiod (libgpiod 2): one request per line.

Kernel time stamps, sequence numbers that show lost edges, debounce by the kernel, errors with an errno.
"""

import errno
import os
import select
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from device_agent.bus.config import GpioBusConfig
from device_agent.bus.gpio import Bias, Drive, Edge, GpioBus, InputLine, InputLines, OutputLine, PwmOutput
from device_agent.bus.pwm_sysfs import SysfsPwm
from device_agent.bus.recipe import Recipe
from device_agent.bus.system import denied, listed
from device_agent.errors import BusError, BusGone, BusHeld, PlaceRefused

CONSUMER = "device-agent"
# Edges that the kernel keeps for a line until they are read (default 16); it drops the oldest.
EDGES_MAX = 1024

# linux/gpio.h: GPIO_V2_LINE_FLAG_OUTPUT, with _OPEN_DRAIN or _OPEN_SOURCE; _ACTIVE_LOW is bit 1.
_OUTPUT_FLAGS: dict[Drive, int] = {
    "push-pull": 1 << 3,
    "open-drain": 1 << 3 | 1 << 6,
    "open-source": 1 << 3 | 1 << 7,
}

_GONE = {errno.ENODEV, errno.ENOENT, errno.ENXIO, errno.EBADF, errno.ESHUTDOWN}

LineT = TypeVar("LineT", bound="_GpiodLine")


class GpiodGpio(GpioBus):
    """One chip, found by label ("pinctrl-bcm2835") or path, and the lines claimed of it."""

    def __init__(self, name: str, config: GpioBusConfig) -> None:
        self.name = name
        self.config = config
        self.path = config.chip
        self._chip: Any = None
        self._lines: weakref.WeakSet[_GpiodLine] = weakref.WeakSet()

    # -- life ----------------------------------------

    def open(self) -> None:
        self.close()
        self._chip = self._find()

    def close(self) -> None:
        """Also releases every line: a held descriptor makes a chip come back under another number."""
        for line in list(self._lines):
            line.close()
        chip, self._chip = self._chip, None
        if chip is not None:
            chip.close()

    def _find(self) -> Any:
        import gpiod

        self.path = find_chip(self.name, self.config.chip)
        with self._mapped("the chip"):
            return gpiod.Chip(self.path)

    # -- lines ----------------------------------------

    def input(
        self,
        line: int | str,
        *,
        active_low: bool = False,
        bias: Bias = "as-is",
        debounce_s: float = 0.0,
        edges: bool = True,
    ) -> InputLine:
        return self._inputs((line,), active_low=active_low, bias=bias, debounce_s=debounce_s, edges=edges)

    def inputs(
        self, lines: Sequence[int | str], *, active_low: bool = False, bias: Bias = "as-is"
    ) -> InputLines:
        return self._inputs(lines, active_low=active_low, bias=bias, debounce_s=0.0, edges=True)

    def _inputs(
        self, lines: Sequence[int | str], *, active_low: bool, bias: Bias, debounce_s: float, edges: bool
    ) -> "GpiodInput":
        """One request for all: the kernel has one queue for them."""
        from gpiod.line import Bias as KernelBias
        from gpiod.line import Clock, Direction
        from gpiod.line import Edge as KernelEdge
        from gpiod.line_settings import LineSettings

        settings = LineSettings(
            direction=Direction.INPUT,
            edge_detection=KernelEdge.BOTH if edges else KernelEdge.NONE,
            bias={
                "as-is": KernelBias.AS_IS,
                "none": KernelBias.DISABLED,
                "pull-up": KernelBias.PULL_UP,
                "pull-down": KernelBias.PULL_DOWN,
            }[bias],
            active_low=active_low,
            debounce_period=timedelta(seconds=debounce_s),
            event_clock=Clock.MONOTONIC,
        )
        request, offsets = self._request(lines, settings, f"bias {bias!r}, debounce_s {debounce_s:g}")
        return self._keep(GpiodInput(self, request, offsets))

    def output(
        self, line: int | str, *, active: bool, active_low: bool = False, drive: Drive = "push-pull"
    ) -> OutputLine:
        from gpiod.line import Direction, Value
        from gpiod.line import Drive as KernelDrive
        from gpiod.line_settings import LineSettings

        settings = LineSettings(
            direction=Direction.OUTPUT,
            drive={
                "push-pull": KernelDrive.PUSH_PULL,
                "open-drain": KernelDrive.OPEN_DRAIN,
                "open-source": KernelDrive.OPEN_SOURCE,
            }[drive],
            active_low=active_low,
            output_value=Value.ACTIVE if active else Value.INACTIVE,
        )
        request, offsets = self._request((line,), settings, f"drive {drive!r}")
        return self._keep(GpiodOutput(self, request, offsets, _OUTPUT_FLAGS[drive] | active_low << 1))

    def pwm(
        self, line: int | str, *, duty: float, frequency_hz: float, active_low: bool = False
    ) -> PwmOutput:
        channel = self.config.pwm.get(str(line))
        if channel is None:
            return super().pwm(line, duty=duty, frequency_hz=frequency_hz, active_low=active_low)
        return SysfsPwm(self.name, channel, duty=duty, frequency_hz=frequency_hz, active_low=active_low)

    def _keep(self, line: LineT) -> LineT:
        self._lines.add(line)
        return line

    def _request(self, lines: Sequence[int | str], settings: Any, wish: str) -> tuple[Any, list[int]]:
        """All or none of them; also returns their offsets."""
        if self._chip is None:
            raise BusGone(f"bus {self.name}: {self.path} is not open")
        with self._mapped(named(lines), wish):
            offsets = [self._offset(line) for line in lines]
            try:
                request = self._chip.request_lines(
                    {tuple(offsets): settings}, consumer=CONSUMER, event_buffer_size=EDGES_MAX
                )
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                raise BusHeld(f"bus {self.name}: {self._held(lines, offsets)}") from error
            return request, offsets

    def _offset(self, line: int | str) -> int:
        try:
            return int(self._chip.line_offset_from_id(line))
        except (ValueError, FileNotFoundError) as error:
            last = self._chip.get_info().num_lines - 1
            raise PlaceRefused(
                f"bus {self.name}: {self.path} has no line {line!r}; its lines are 0 to {last}"
            ) from error

    def _held(self, lines: Sequence[int | str], offsets: list[int]) -> str:
        for line, offset in zip(lines, offsets, strict=True):
            info = self._chip.get_line_info(offset)
            if info.used:
                holder = (
                    f"{info.consumer!r}; stop it or choose another line"
                    if info.consumer
                    else "a kernel driver"
                )
                return f"line {line} is held by {holder}"
        return f"{named(lines)} was held a moment ago"

    # -- errors ----------------------------------------

    @contextmanager
    def _mapped(self, what: str, wish: str = "") -> Iterator[None]:
        from gpiod.exception import ChipClosedError, RequestReleasedError

        where = f"bus {self.name} ({self.path}), {what}"
        try:
            yield
        except BusError:
            raise
        except (ChipClosedError, RequestReleasedError) as error:
            raise BusGone(f"{where}: was released") from error
        except OSError as error:
            if error.errno in _GONE:
                raise BusGone(f"{where}: the GPIO chip is gone") from error
            if error.errno in (errno.EACCES, errno.EPERM):
                raise denied(self.path) from error
            if wish and error.errno in (errno.EINVAL, errno.EOPNOTSUPP, 524):  # 524: the kernel's ENOTSUPP
                raise PlaceRefused(f"{where}: the chip does not support {wish}") from error
            raise BusError(f"{where}: {error.strerror or error}") from error


class _GpiodLine:
    """A request of lines. The event loop calls `drain`, the bus's thread `close`: hence the lock."""

    def __init__(self, bus: GpiodGpio, request: Any, offsets: Sequence[int]) -> None:
        self._bus = bus
        self._lock = threading.Lock()
        self._request: Any = request
        self._fd = int(request.fd)
        self._offsets = offsets

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        with self._lock:
            request, self._request = self._request, None
            if request is not None:
                request.release()

    def read(self) -> bool:
        from gpiod.line import Value

        with self._claimed() as request:
            return bool(request.get_value(self._offsets[0]) is Value.ACTIVE)

    @contextmanager
    def _claimed(self) -> Iterator[Any]:
        where = named(self._offsets)
        with self._bus._mapped(where), self._lock:
            if self._request is None:
                raise BusGone(f"bus {self._bus.name}: {where} was released")
            yield self._request


class GpiodInput(_GpiodLine):
    """Claimed inputs with their queue of edges."""

    def __init__(self, bus: GpiodGpio, request: Any, offsets: Sequence[int]) -> None:
        super().__init__(bus, request, offsets)
        self._sequences = dict.fromkeys(offsets, 0)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)

    def levels(self) -> Sequence[bool]:
        from gpiod.line import Value

        with self._claimed() as request:
            return [value is Value.ACTIVE for value in request.get_values(list(self._offsets))]

    def watched(self, active: bool) -> Recipe:
        """Asking for the level takes no edge out of the queue that both share."""
        with self._claimed():
            return Recipe("level", {"active": active}, os.dup(self._fd))

    def drain(self) -> Sequence[Edge]:
        """All edges that wait. A removed chip polls as an error, and reading it raises ENODEV."""
        with self._claimed() as request:
            # Not gpiod's own wait: it uses select(), which fails for descriptors above 1023.
            if not self._poll.poll(0):
                return ()
            edges = [self._edge(event) for event in request.read_edge_events(EDGES_MAX)]
        # Each line's interrupt has a thread of its own that puts them into the queue.
        return sorted(edges, key=lambda edge: edge.monotonic_s)

    def _edge(self, event: Any) -> Edge:
        offset = event.line_offset
        lost = event.line_seqno - self._sequences[offset] - 1
        self._sequences[offset] = event.line_seqno
        rising = event.event_type is event.Type.RISING_EDGE
        return Edge(rising, event.timestamp_ns / 1e9, max(0, lost), self._offsets.index(offset))


class GpiodOutput(_GpiodLine):
    """A claimed output; the kernel keeps it driven while a descriptor of the request is open."""

    def __init__(self, bus: GpiodGpio, request: Any, offsets: Sequence[int], flags: int) -> None:
        """`flags`: the kernel's, with which the guard claims it anew."""
        super().__init__(bus, request, offsets)
        self._flags = flags

    def write(self, active: bool) -> None:
        from gpiod.line import Value

        with self._claimed() as request:
            request.set_value(self._offsets[0], Value.ACTIVE if active else Value.INACTIVE)

    def recipe(self, active: bool) -> Recipe:
        with self._claimed():
            place = {"path": self._bus.path, "offset": self._offsets[0], "flags": self._flags}
            return Recipe("line", {"active": active, **place}, os.dup(self._fd), hold=True)


def named(lines: Sequence[int | str]) -> str:
    """ "line 5" or "lines 5 and 6"."""
    return f"line{'s' if len(lines) > 1 else ''} {' and '.join(map(str, lines))}"


def find_chip(bus: str, wanted: str) -> str:
    """The node of the chip with this label, or the path as it is. Raises BusGone, BusDenied, BusError."""
    import gpiod

    if wanted.startswith("/"):
        return wanted
    labels: dict[str, str] = {}
    refused = ""
    # One chip may have two nodes: kernels for the Pi 5 link an old number to the new one.
    for path in sorted({os.path.realpath(path) for path in Path("/dev").glob("gpiochip*")}):
        try:
            with gpiod.Chip(path) as chip:
                labels[path] = chip.get_info().label
        except PermissionError:
            refused = path
        except OSError:
            continue  # it left between the listing and now
    found = [path for path, label in labels.items() if label == wanted]
    if len(found) == 1:
        return found[0]
    if found:
        raise BusError(
            f"bus {bus}: {len(found)} GPIO chips are labelled {wanted!r} ({', '.join(found)}); "
            "name one by its path"
        )
    if refused:
        raise denied(refused)
    there = listed([f"{label!r} ({path})" for path, label in labels.items()], "there is no GPIO chip")
    raise BusGone(f"bus {bus}: no GPIO chip is labelled {wanted!r}; {there}")
