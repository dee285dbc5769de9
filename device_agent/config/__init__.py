"""The configuration file: `load` makes a checked, frozen `Config`, or says everything that is wrong."""

from typing import TYPE_CHECKING, Any

from device_agent.config.access import AccessConfig
from device_agent.config.models import (
    AgentConfig,
    Config,
    HistoryConfig,
    NetworkConfig,
    OutboxConfig,
    SafetyConfig,
    StateConfig,
    StreamConfig,
    TagConfig,
)

if TYPE_CHECKING:
    from device_agent.config.reader import load

__all__ = [
    "AccessConfig",
    "AgentConfig",
    "Config",
    "HistoryConfig",
    "NetworkConfig",
    "OutboxConfig",
    "SafetyConfig",
    "StateConfig",
    "StreamConfig",
    "TagConfig",
    "load",
]


def __getattr__(name: str) -> Any:
    # Who is handed a checked configuration needs neither the checks nor pydantic.
    if name == "load":
        from device_agent.config.reader import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
