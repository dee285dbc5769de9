"""The configuration's tables as models. Attribute names are the TOML keys."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from device_agent.bus.config import BusConfig
from device_agent.config.access import AccessConfig
from device_agent.config.automation import Alert, Rule
from device_agent.config.calibration import calibrated_points
from device_agent.config.delegation import Delegation, DelegationConfig
from device_agent.config.mqtt import MqttConfig
from device_agent.config.page import PageConfig
from device_agent.config.types import LocalPath, SizeBytes, Table
from device_agent.driver import Driver, DriverConfig, Point, Value
from device_agent.schema import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

TaskKind = Literal["request", "pipe"]

STATE_DIRECTORY = "/var/lib/device-agent"

# The instance id "AG-<name>-<uuid>" is a user id of the network, which takes 92 characters.
AGENT_NAME_MAX = 52


class TagConfig(Table):
    """One discoverable capability; in the short form only its id is written."""

    id: str = Field(
        pattern=r"^[a-z0-9][a-z0-9._-]*$",
        max_length=64,
        description="What callers search by: lower-case letters, digits, . _ -",
    )
    name: str = Field("", max_length=80, description="For people; made from the id where it is not written.")
    description: str = Field("", max_length=500, description="What it can be asked for.")
    examples: tuple[str, ...] = Field(
        (), max_length=16, strict=False, description="Questions or tasks that fit."
    )

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"id": value} if isinstance(value, str) else value

    @property
    def title(self) -> str:
        """The name to show; made from the id where none is written."""
        return self.name or self.id.replace("_", " ").replace("-", " ").replace(".", " ").capitalize()


class AgentConfig(Table):
    """[agent]: who the agent is."""

    name: str = Field(
        pattern=r"^[a-zA-Z0-9_]+$",
        max_length=AGENT_NAME_MAX,
        description="The agent's name on the network; letters, digits, _",
    )
    display_name: str = Field("", max_length=120, description="For people.")
    description: str = Field("", max_length=2000, description="What it senses and does, for who searches.")
    version: str = Field(
        "1.0.0",
        pattern=r"^[0-9A-Za-z][0-9A-Za-z.+-]*$",
        max_length=64,
        description="Of your agent, shown on its card.",
    )
    organization: str = Field("", max_length=120, description="Who runs it.")
    tags: tuple[TagConfig, ...] = Field(
        (),
        max_length=32,
        strict=False,
        description='What it is found by: "climate", or { id, name, description, examples }.',
    )
    concurrency: int = Field(8, ge=0, le=1000, description="Tasks at once; 0 = no limit of ours.")
    instances: int = Field(1, ge=0, le=1000, description="Devices that join under this name; 0 = broadcast.")
    max_pending_backlog: int | None = Field(
        None, ge=0, le=100_000, description="Tasks that may wait for a free place, told to the network."
    )
    max_running_s: int = Field(900, ge=1, le=86_400, description="Longest time of a request task.")
    task_kinds: tuple[TaskKind, ...] = Field(
        ("request", "pipe"), min_length=1, strict=False, description="Which kinds of task it takes."
    )

    @property
    def title(self) -> str:
        """Its name for people."""
        return self.display_name or self.name

    @field_validator("tags")
    @classmethod
    def _tags_once(cls, tags: tuple[TagConfig, ...]) -> tuple[TagConfig, ...]:
        ids = [tag.id for tag in tags]
        if twice := sorted({one for one in ids if ids.count(one) > 1}):
            raise ValueError(f"must name each tag once, but has {', '.join(twice)} twice")
        return tags

    @field_validator("task_kinds")
    @classmethod
    def _kinds_once(cls, kinds: tuple[TaskKind, ...]) -> tuple[TaskKind, ...]:
        if len(set(kinds)) < len(kinds):
            raise ValueError("must name each kind once")
        return tuple(sorted(kinds, reverse=True))


def _network_kind(value: Any) -> Any:
    if value == "mqtt":
        raise ValueError('is reserved for a later release; write "blocks" or "none"')
    return value


class NetworkConfig(Table):
    """[network]: where the agent joins."""

    kind: Annotated[Literal["blocks", "none"], BeforeValidator(_network_kind)] = Field(
        "blocks", description='"none": no network, the device works for its owner alone.'
    )
    listing: Literal["private", "public"] = Field(
        "private", description="Who may find it; used by `publish`."
    )
    billing_mode: Literal["free", "paid"] = Field(
        "free", description="Whether callers pay; used by `publish`."
    )
    publish_rate_hz: float = Field(
        12, ge=0, le=100_000, description="Messages a second on one channel; 0 = no pacing."
    )
    cdm_url: str | None = Field(
        None,
        pattern=r"^https?://\S+$",
        max_length=2000,
        description="Another network, for development: `dev-network` prints it.",
    )
    api_base_url: str | None = Field(
        None,
        pattern=r"^https?://\S+$",
        max_length=2000,
        description="The same, of the API; made from `cdm_url` where it is not written.",
    )
    pubnub_origin: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9.\[\]:-]+$",
        max_length=300,
        description="The same, of the message service: host and port.",
    )
    pubnub_tls: bool = Field(True, description="Whether that speaks TLS.")
    proxy: str | None = Field(
        None,
        pattern=r"^http://[^\s@/]+/?$",
        max_length=300,
        description="The way out where there is no other; one with a password goes into $HTTPS_PROXY.",
    )
    api_key_file: LocalPath | None = Field(
        None,
        description="File of the device's API key, its owner's alone; else `api_key` beside this.",
    )


class StateConfig(Table):
    """[state]: where things are kept."""

    directory: LocalPath = Field(
        Path(STATE_DIRECTORY), description="Outbox, Journal, history, identity; nobody else may write there."
    )
    runtime_directory: LocalPath = Field(
        Path(STATE_DIRECTORY, "run"),
        description="Socket and crash log, in memory; else $RUNTIME_DIRECTORY, else `run` in `directory`.",
    )
    counts_every_s: float = Field(
        30,
        ge=10,
        le=3600,
        description="What was counted is written no oftener: a power cut costs as much.",
    )

    @model_validator(mode="before")
    @classmethod
    def _runtime_directory(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, dict) or "runtime_directory" in value:
            return value
        directory = value.get("directory", STATE_DIRECTORY)
        wrong = not isinstance(directory, str) or "\0" in directory  # the field's own check reports it
        inside = "run" if wrong else f"{directory}/run"
        return {**value, "runtime_directory": (info.context or {}).get("runtime_directory") or inside}


class OutboxConfig(Table):
    """[outbox]: the durable queue towards callers."""

    max_bytes: SizeBytes = Field(
        32_000_000,
        ge=256_000,
        le=64_000_000_000,
        description="What waits for callers, at most; then each stream's `overflow` applies.",
    )
    commit_interval_s: float = Field(0.5, ge=0.01, le=60, description="How much of it a power cut may cost.")


class HistoryConfig(Table):
    """[history]: the local record of readings."""

    enabled: bool = Field(True, description="Whether readings are recorded here.")
    keep_days: float = Field(
        366,
        gt=0,
        le=3660,
        description="How long: each reading for a day, a row a minute for a week, then one each 15 minutes.",
    )
    max_bytes: SizeBytes = Field(
        64_000_000,
        ge=256_000,
        le=1_000_000_000_000,
        description="Of the record, at most; at it older rows get coarser, then the oldest go.",
    )


class SafetyConfig(Table):
    """[safety]: the guard, the lease, and the line of the emergency stop."""

    guard_timeout_s: float = Field(
        1, ge=0.1, le=60, description="How long the daemon may be silent before the guard makes safe."
    )
    lease_idle_s: float = Field(
        60,
        ge=0.1,
        le=86_400,
        description="A caller who drives nothing for so long no longer keeps others out.",
    )
    stop_device: str | None = Field(None, description="The device of an emergency stop button.")
    stop_point: str = Field("active", description="Its point.")
    stop_active: bool = Field(True, description="The value of the point that presses the stop.")
    stop_persists: bool = Field(
        False,
        description="Where nobody knows whether it was pressed (a reboot, state in memory), it was.",
    )


class StreamConfig(Table):
    """[streams.NAME]: one declared stream."""

    direction: Literal["outbound", "inbound", "bidirectional"] = Field(
        description='"bidirectional": what is in it can be driven.'
    )
    affinity: Literal["dedicated", "shared"] = Field(
        "dedicated", description='"shared": one channel for all callers, who cannot be told apart.'
    )
    format: Literal["events", "bytes"] = Field(
        "events", description='"bytes": what one device says, as it is.'
    )
    devices: tuple[str, ...] = Field(min_length=1, strict=False, description="The devices it carries.")
    overflow: Literal["drop-oldest", "thin", "refuse"] = Field(
        "drop-oldest",
        description="At the outbox's limit: the oldest go, means take their place, or new ones are refused.",
    )
    link_loss_grace_s: float = Field(
        10, ge=0, le=86_400, description="After so long without network what its callers drove goes to safe."
    )
    caller_silence_s: float | None = Field(
        None,
        ge=1,
        le=86_400,
        description="A caller that says nothing for so long is gone: what it drove goes to safe.",
    )

    @property
    def outward(self) -> bool:
        """Whether it carries anything to callers."""
        return self.direction != "inbound"

    @property
    def inward(self) -> bool:
        """Whether callers can send on it."""
        return self.direction != "outbound"


@dataclass(frozen=True, slots=True)
class Config:
    """A whole configuration that passed every check. Made by `device_agent.config.reader.load` alone."""

    path: Path
    agent: AgentConfig
    network: NetworkConfig
    state: StateConfig
    outbox: OutboxConfig
    history: HistoryConfig
    safety: SafetyConfig
    access: AccessConfig
    delegation: DelegationConfig
    page: PageConfig
    mqtt: MqttConfig
    buses: Mapping[str, BusConfig]
    devices: Mapping[str, DriverConfig]
    drivers: Mapping[str, type[Driver[Any, Any]]]
    """The driver class of each device, by the device's name."""
    streams: Mapping[str, StreamConfig]
    delegations: Mapping[str, Delegation]
    rules: Mapping[str, Rule]
    alerts: Mapping[str, Alert]
    warnings: tuple[str, ...] = ()

    def points(self, device: str) -> tuple[Point, ...]:
        """The points of one device as configured and calibrated."""
        config = self.devices[device]
        return calibrated_points(self.drivers[device].points_of(config), config)

    def safe(self, device: str) -> dict[str, Value]:
        """The safe value of each writable point of one device; empty for what does not move."""
        safe_of = getattr(self.drivers[device], "safe_of", None)
        return dict(safe_of(self.devices[device])) if safe_of is not None else {}

    def delegations_of(self, stream: str) -> dict[str, Delegation]:
        """The delegations whose answers go out on this stream, and whose `do` it takes."""
        return {name: rule for name, rule in self.delegations.items() if rule.stream == stream}

    def drivable(self, device: str) -> bool:
        """Whether anything of this device can be set or moved."""
        return any(point.write for point in self.points(device)) or any(
            action.moves for action in self.drivers[device].all_actions()
        )
