"""Checks of streams against devices and against what the network allows."""

from collections.abc import Iterator

from device_agent.config.draft import ConfigDraft
from device_agent.config.explain import did_you_mean, show
from device_agent.config.models import StreamConfig

# A channel of the network is "stream.<agent>.<stream>" and takes 92 bytes; so does a stream's id alone.
CHANNEL_MAX_BYTES = 92


def streams(draft: ConfigDraft) -> Iterator[str]:
    """Every fault of a stream that its own table cannot see."""
    yield from _instances(draft)
    for name, stream in draft.streams.items():
        place = f"streams.{name}"
        yield from _devices(draft, place, stream)
        yield from _names(draft, name, stream)
        if stream.caller_silence_s is not None and not stream.inward:
            yield (
                f"{place}.caller_silence_s = {stream.caller_silence_s:g} is for streams on which callers "
                'speak: remove it, or write direction = "bidirectional"'
            )
        if stream.format == "bytes":
            yield from _bytes(draft, place, stream)
        elif stream.inward:
            yield from _something_to_drive(draft, place, stream)


def _instances(draft: ConfigDraft) -> Iterator[str]:
    """A reader counts one writer's messages: two writers on one channel would count as repeats."""
    agent = draft.agent
    if agent is None or agent.instances == 1:
        return
    for name, stream in draft.streams.items():
        if stream.affinity == "shared":
            yield (
                f'streams.{name}.affinity = "shared" has one writer, and agent.instances = {agent.instances} '
                'devices would write to it: write "dedicated"'
            )
    if agent.instances == 0 and "pipe" in agent.task_kinds:
        yield (
            "agent.instances = 0 sends each task to every device, and a session has one: write "
            'agent.task_kinds = ["request"], or how many devices there are'
        )


def stream_warnings(draft: ConfigDraft) -> Iterator[str]:
    """What the network allows and its guide, or sense, advises against."""
    kinds = draft.agent.task_kinds if draft.agent is not None else ()
    shared = [name for name, stream in draft.streams.items() if stream.affinity == "shared"]
    if "request" in kinds and "pipe" in kinds and shared:
        yield (
            f"the card declares request tasks beside the shared stream {', '.join(shared)}, which a request "
            'never opens: set agent.task_kinds = ["pipe"], or make the stream dedicated'
        )
    for name in shared:
        if draft.streams[name].inward:
            yield (
                f"streams.{name} is shared and takes commands: nobody can tell which caller sent one; "
                'set affinity = "dedicated"'
            )
    if "pipe" in kinds and not draft.streams:
        yield 'there is no stream for pipe tasks: add [streams.NAME], or set agent.task_kinds = ["request"]'
    carried = {device for stream in draft.streams.values() for device in stream.devices}
    for device in draft.devices.values():
        if device.has_bytes and not device.driver.actions and device.name not in carried:
            yield f'devices.{device.name} is in no stream: add one with format = "bytes"'


def _devices(draft: ConfigDraft, place: str, stream: StreamConfig) -> Iterator[str]:
    for position, name in enumerate(stream.devices):
        where = f"{place}.devices.{position} = {show(name)}"
        if name not in draft.device_names:
            known = f"devices are {', '.join(draft.device_names) or 'none yet'}"
            yield f"{where} is not a device: {did_you_mean(name, draft.device_names, known)}"
        elif name in stream.devices[:position]:
            yield f"{where} is named twice: remove one"
        elif stream.format == "events" and name in draft.devices:
            device = draft.devices[name]
            if not device.points and all(action.gives for action in device.driver.actions):
                yield f'{where} has no points for events: use a stream with format = "bytes"'


def _names(draft: ConfigDraft, name: str, stream: StreamConfig) -> Iterator[str]:
    if name == "_default" and stream.affinity == "shared":
        yield 'streams._default.affinity = "shared" is not allowed by the network: write "dedicated"'
    if draft.agent is None:
        return
    if "pipe" not in draft.agent.task_kinds and name != "_default":
        yield f'streams.{name} needs pipe tasks: add "pipe" to agent.task_kinds, or remove the stream'
    channel = f"stream.{draft.agent.name}.{name}"
    if len(channel) > CHANNEL_MAX_BYTES:
        yield (
            f"streams.{name}: its channel {channel} has {len(channel)} bytes and the network takes "
            f"{CHANNEL_MAX_BYTES}: shorten the name"
        )


def _bytes(draft: ConfigDraft, place: str, stream: StreamConfig) -> Iterator[str]:
    if len(stream.devices) != 1:
        yield f"{place}.devices has {len(stream.devices)} devices: a stream of bytes carries exactly one"
    if stream.overflow == "thin":
        yield f'{place}.overflow = "thin" has no meaning for bytes: write "drop-oldest" or "refuse"'
    for name in stream.devices:
        if name in draft.devices and not draft.devices[name].has_bytes:
            yield (
                f'{place}.format = "bytes" but devices.{name} (driver "{draft.devices[name].driver_name}") '
                'has no bytes side: write "events", or use driver = "serial-bytes"'
            )


def _something_to_drive(draft: ConfigDraft, place: str, stream: StreamConfig) -> Iterator[str]:
    devices = [draft.devices[name] for name in stream.devices if name in draft.devices]
    asked = any(f"streams.{rule.stream}" == place for rule in draft.delegations.values())
    if len(devices) == len(stream.devices) and not asked and not any(one.drivable for one in devices):
        yield (
            f'{place}.direction = "{stream.direction}" but none of its devices can be driven: write '
            '"outbound", or add a device with a writable point'
        )
