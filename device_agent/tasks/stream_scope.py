"""Which declared streams a session opens, and what of each its caller may see."""

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from device_agent.commands.authorization import Actor, may
from device_agent.config import Config
from device_agent.config.models import StreamConfig
from device_agent.devices.device import Device
from device_agent.errors import Rejected
from device_agent.messages.requests import PipeRequest
from device_agent.network import StartTask, StreamSpec

# A stream's id is at most this long on the network.
STREAM_ID_MAX = 92


@dataclass(frozen=True, slots=True)
class StreamScope:
    """One stream, with the devices and delegations that its callers may see. A reload changes `devices`."""

    spec: StreamSpec
    config: StreamConfig
    devices: dict[str, Device]
    delegations: frozenset[str] = frozenset()

    @property
    def names(self) -> set[str]:
        """What a command on this stream may name."""
        return {*self.devices, *self.delegations}

    @property
    def shared(self) -> bool:
        """Whether all sessions use one stream, which has one writer."""
        return self.spec.affinity == "shared"


def spec_of(name: str, config: Config, start: StartTask) -> StreamSpec:
    """The declared stream `name` as a task opens it: a shared one is the same for all tasks."""
    stream = config.streams[name]
    shared = stream.affinity == "shared"
    id_ = name if shared else stream_id(start, list(config.streams).index(name) + 1)
    return StreamSpec(name, id_, stream.direction, stream.format, stream.affinity)


def scope_of(spec: StreamSpec, config: Config, devices: Mapping[str, Device], actor: Actor) -> StreamScope:
    """What this caller may see of a stream; a shared one is the same for all who may open it."""
    stream = config.streams[spec.name]
    shared = spec.affinity == "shared"
    names = [n for n in stream.devices if shared or may(config.access, "read", actor, n)]
    delegations = [n for n in config.delegations_of(spec.name) if may(config.access, "read", actor, n)]
    # A reload may have removed a device since the session chose its streams.
    present = {n: devices[n] for n in names if n in devices}
    return StreamScope(spec, stream, present, frozenset(delegations))


def choose_streams(
    request: PipeRequest, config: Config, devices: Mapping[str, Device], actor: Actor
) -> list[str]:
    """The streams that a session opens, in the order of the request or else of the configuration.

    Without `request.streams` those that carry a requested device, as far as the caller may read them. Raises
    Rejected `invalid_value`, `unknown_device` or `not_allowed`.
    """
    for name in request.streams or ():
        if name not in config.streams:
            known = ", ".join(config.streams) or "none"
            raise Rejected(
                "invalid_value", f"request.streams: there is no stream {name!r}; there are: {known}"
            )
    for name in request.devices or ():
        if name not in devices or not may(config.access, "read", actor, name):
            raise Rejected("unknown_device", f"request.devices: there is no device {name!r}")
    chosen = []
    for name in request.streams or config.streams:
        carried = config.streams[name].devices
        wanted = request.devices is None or not set(request.devices).isdisjoint(carried)
        if not wanted and request.streams is None:
            continue
        if _readable(name, config, actor):
            chosen.append(name)
        elif request.streams is not None:
            raise Rejected("not_allowed", f"the owner's access rules do not let you read stream {name!r}")
    if not chosen:
        raise Rejected("not_allowed", "there is no stream here that you may read")
    return list(dict.fromkeys(chosen))


def _readable(name: str, config: Config, actor: Actor) -> bool:
    """A shared stream goes to all its callers, so each must be allowed all of it; else any part is enough."""
    stream = config.streams[name]
    if stream.affinity == "shared":
        carried = [*stream.devices, *config.delegations_of(name)]
        return all(may(config.access, "read", actor, item) for item in carried)
    return any(may(config.access, "read", actor, device) for device in stream.devices)


def stream_id(start: StartTask, index: int) -> str:
    """The id of a task's dedicated stream (docs/protocol.md)."""
    id_ = f"{start.task_id}-{index}"
    if len(id_) <= STREAM_ID_MAX and re.fullmatch(r"[A-Za-z0-9_-]+", id_):
        return id_
    return f"task-{zlib.crc32(start.task_id.encode()):08x}-{index}"
