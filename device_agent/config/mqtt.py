"""[mqtt]: a broker as a second door, and Home Assistant behind it."""

from typing import Literal

from device_agent.config.types import LocalPath, Table
from device_agent.schema import Field, model_validator

# Of one level or more, without wildcards, and not among what brokers say of themselves.
TOPIC = r"^[^/+#$\s][^/+#\s]*(/[^/+#\s]+)*$"


class MqttConfig(Table):
    """[mqtt]: off unless `host` is given. What may be driven by it, `local:mqtt` in [access] says."""

    host: str = Field("", max_length=255, pattern=r"^[^\s/@]*$")
    port: int = Field(1883, ge=1, le=65_535)
    username: str | None = None
    password_file: LocalPath | None = None
    tls: bool = False
    ca_file: LocalPath | None = None
    certificate_file: LocalPath | None = None
    key_file: LocalPath | None = None
    keepalive_s: int = Field(15, ge=5, le=3600)
    prefix: str | None = Field(None, pattern=TOPIC, max_length=200)
    """Of all its topics; without it "device-agent/" and the agent's name."""
    commands: bool = True
    """Whether it listens for commands at all."""
    home_assistant: bool = False
    discovery_prefix: str = Field("homeassistant", pattern=TOPIC, max_length=100)
    overflow: Literal["drop-oldest", "thin", "refuse"] = "drop-oldest"
    """As of a stream: what becomes of the events when the outbox is full."""

    @property
    def timeout_s(self) -> float:
        """How long the broker may take for an answer."""
        return 10.0

    @model_validator(mode="after")
    def _is_whole(self) -> "MqttConfig":
        if not self.host and self.model_fields_set:
            raise ValueError("`host` is missing: name the broker")
        if (self.certificate_file is None) is not (self.key_file is None):
            raise ValueError("`certificate_file` and `key_file` go together")
        if not self.tls and (self.ca_file or self.certificate_file):
            raise ValueError("`ca_file` and `certificate_file` are for TLS: set `tls = true`")
        return self
