"""What can be chosen about the stand-in. Every value may also be changed while it runs."""

from __future__ import annotations

from dataclasses import dataclass, field

PROTOCOL_VERSION = "2026-05-01"
"""The only protocol version there is."""

KEY_SETS: dict[str, tuple[str, str]] = {
    "playground": ("pub-c-dev-playground", "sub-c-dev-playground"),
    "network": ("pub-c-dev-network", "sub-c-dev-network"),
}
"""Environment name to (publish key, subscribe key)."""

BILLING_ENVIRONMENT = {"free": "playground", "paid": "network"}
"""Which key set an agent of a billing mode uses."""

BACKEND_UUID = "blocks-backend"
"""Publisher uuid of everything that the backend itself publishes."""


@dataclass(slots=True)
class TokenLifetimes:
    """Lifetimes in seconds; ``None`` means "derived from the task's duration".

    ``control`` names the control token, ``write`` the per-task publish token (T2), ``read`` the caller's
    task token (T4), ``stream`` both stream tokens (T7a, T7c), ``access`` the JWT of connect, refresh and
    consumer-token.
    """

    control: float = 3600.0
    write: float | None = None
    read: float = 3600.0
    stream: float | None = None
    access: float = 3600.0


@dataclass(slots=True)
class Settings:
    """Behaviour of the stand-in; times in seconds unless the name says otherwise."""

    auto_register: bool = False
    """Any agent name that is read in the registry, or sent to, becomes a private and free agent."""
    enforce_private: bool = False
    """Private agents exist only for their own organisation and for those that hold a grant."""
    control_may_publish: bool = True
    """The control token may publish task events, as rejections need it."""
    hold_s: float = 280.0
    """How long an idle long-poll is held before an empty answer."""
    presence_timeout_s: float = 300.0
    """Presence timeout of a client that names none."""
    minute_s: float = 60.0
    """Length of one minute of task duration; small values let a test see a pipe task expire."""
    safety_grace_s: float = 10.0
    """How long after a cancel, terminate or expiry the backend waits before it ends the task itself."""
    stream_revoke_delay_s: float = 5.0
    """How long after a task's terminal its stream consumer tokens (T7c) stay valid, for the last data."""
    dispatch_delay_s: float = 0.0
    """Pause between accepting a task and sending StartTask."""
    dispatch_when_watched_s: float = 0.0
    """Longest wait for a subscriber on the task channel before StartTask is sent. With 0 there is none, and a
    caller can miss the first events of a quick task, as it can outside."""
    default_backlog: int = 10
    """Tasks that may wait for an agent that does not say ``maxPendingBacklog``."""
    default_running_time_s: float = 3600.0
    """Deadline of a request task whose agent does not say ``maxRunningTimeSec``."""
    message_limit_bytes: int = 32 * 1024
    queue_length: int = 100
    """Messages in a channel's memory queue, and at most in one subscribe answer."""
    history_length: int = 10_000
    """Stored messages kept per channel."""
    record_length: int = 10_000
    """Publishes recorded per channel."""
    record_bytes: int = 64 * 1024 * 1024
    """Payload bytes recorded in all; the oldest go first."""
    request_record_length: int = 20_000
    max_channels: int = 20_000
    max_tasks: int = 20_000
    max_file_bytes: int = 256 * 1024 * 1024
    """Size of all uploaded files together; the oldest go first."""
    lifetimes: TokenLifetimes = field(default_factory=TokenLifetimes)
