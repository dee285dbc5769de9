"""The agent card, made from the configuration and its drivers; nobody edits it by hand."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from device_agent.card import commands, events, json_schema
from device_agent.card.inputs_outputs import inputs, inventory, outputs, progress_stream
from device_agent.config import Config, StreamConfig
from device_agent.messages.requests import PROGRESS_STREAM


def build(config: Config) -> dict[str, Any]:
    """The card that would be published: the same JSON in the same order for the same configuration."""
    config = _visible(config)
    card: dict[str, Any] = {
        "identity": _identity(config),
        "capabilities": {"taskKinds": list(config.agent.task_kinds)},
        "tags": _tags(config),
        "runtime": _runtime(config),
        "io": {"inputs": inputs(config), "outputs": outputs(config)},
    }
    streams = {name: _stream(config, stream) for name, stream in config.streams.items()}
    if "request" in config.agent.task_kinds and config.agent.instances:
        streams[PROGRESS_STREAM] = progress_stream()
    told: set[tuple[str, str]] = set()
    card["io"]["outputs"] = _told_once(card["io"]["outputs"], told)
    if streams:
        card["streams"] = _told_once(streams, told)
    return card


def _told_once(part: Any, told: set[tuple[str, str]], name: str = "") -> Any:
    """Without a member's description where an earlier one of its name had the same: it binds nobody."""
    if isinstance(part, list):
        return [_told_once(one, told, name) for one in part]
    if not isinstance(part, dict):
        return part
    kept = dict(part)
    if isinstance(text := part.get("description"), str):
        if (name, text) in told:
            del kept["description"]
        told.add((name, text))
    return {key: _told_once(one, told, key) for key, one in kept.items()}


def _visible(config: Config) -> Config:
    """The configuration without devices that no caller may use: everybody can read a card."""
    access = config.access
    names = {n for n in config.devices if access.callers("read", n) or access.callers("drive", n)}
    kept = {
        stream: options.model_copy(update={"devices": tuple(n for n in options.devices if n in names)})
        for stream, options in config.streams.items()
    }
    return replace(
        config,
        devices={name: options for name, options in config.devices.items() if name in names},
        streams={stream: options for stream, options in kept.items() if options.devices},
    )


def _runtime(config: Config) -> dict[str, Any]:
    agent = config.agent
    runtime: dict[str, Any] = {"handler": "device-agent"}
    if agent.concurrency:  # a card cannot say "no limit"
        runtime["concurrency"] = agent.concurrency
    runtime["expectedInstances"] = agent.instances
    if agent.max_pending_backlog is not None:
        runtime["maxPendingBacklog"] = agent.max_pending_backlog
    if "request" in agent.task_kinds:
        runtime["maxRunningTimeSec"] = agent.max_running_s
    return runtime


def validate(card: Any) -> list[str]:
    """Every way in which a card breaks the network's rules, one sentence each; empty if it keeps them."""
    return json_schema.faults(rules(), card, place="")


@cache
def rules() -> dict[str, Any]:
    """The network's rules of a card, as JSON Schema."""
    text = Path(__file__).with_name("agent-card.schema.json").read_text(encoding="utf-8")
    return json.loads(text)  # type: ignore[no-any-return]


def _identity(config: Config) -> dict[str, Any]:
    agent = config.agent
    title = agent.title
    return {
        "agentName": agent.name,
        "displayName": title,
        "description": agent.description
        or f"Sensors and actuators of {title}: {inventory(config, config.devices)}.",
        "version": agent.version,
        "provider": {"organization": agent.organization or title},
    }


def _tags(config: Config) -> list[dict[str, Any]]:
    tags: list[dict[str, Any]] = []
    for tag in config.agent.tags:
        entry: dict[str, Any] = {"id": tag.id, "name": tag.title}
        if tag.description:
            entry["description"] = tag.description
        if tag.examples:
            entry["examples"] = list(tag.examples)
        tags.append(entry)
    return tags or [{"id": "device", "name": "Device", "description": "Real sensors and actuators."}]


def _stream(config: Config, stream: StreamConfig) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "direction": stream.direction,
        "format": stream.format,
        "affinity": stream.affinity,
        "description": _stream_description(config, stream),
    }
    if stream.format == "bytes":
        entry["contentType"] = "application/octet-stream"
    elif stream.direction == "bidirectional":
        entry["outboundSchema"] = events.outbound(config, stream)
        entry["inboundSchema"] = commands.inbound(config, stream)
    else:
        one_way = events.outbound if stream.direction == "outbound" else commands.inbound
        entry["schema"] = one_way(config, stream)
    return entry


def _stream_description(config: Config, stream: StreamConfig) -> str:
    if stream.format == "bytes":
        ways = {"outbound": "out", "inbound": "in", "bidirectional": "out and in"}[stream.direction]
        return f"The bytes of {stream.devices[0]} as they are, {ways}."
    parts = []
    if stream.outward:
        parts.append(f"Readings of {', '.join(stream.devices)}.")
    if stream.inward:
        driven = [name for name in stream.devices if config.drivable(name)]
        if driven:
            parts.append(f"Takes commands for {', '.join(driven)}.")
    if delegations := events.delegations_on(config, stream):
        parts.append(f"Answers of an AI agent to the questions {', '.join(delegations)}.")
    return " ".join(parts)
