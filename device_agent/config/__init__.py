"""The configuration file: `load` makes a checked, frozen `Config`, or says everything that is wrong."""

from device_agent.config.access import AccessConfig
from device_agent.config.load import load
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
