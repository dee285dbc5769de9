"""[mqtt]: a broker as a second door, and Home Assistant behind it."""

from typing import Literal

from device_agent.config.types import LocalPath, Table
from device_agent.schema import Field, model_validator

# Of one level or more, without wildcards, and not among what brokers say of themselves.
TOPIC = r"^[^/+#$\s][^/+#\s]*(/[^/+#\s]+)*$"


class MqttConfig(Table):
    """Off unless `host` is given. What may be driven by it, `local:mqtt` in [access] says."""

    host: str = Field("", max_length=255, pattern=r"^[^\s/@]*$", description="The broker.")
    port: int = Field(1883, ge=1, le=65_535, description="Its port; usually 8883 with TLS.")
    username: str | None = Field(None, description="Who we are there.")
    password_file: LocalPath | None = Field(None, description="A file that only its owner may read.")
    tls: bool = Field(False, description="Whether the connection is encrypted.")
    ca_file: LocalPath | None = Field(None, description="Who vouches for the broker; else the system's.")
    certificate_file: LocalPath | None = Field(None, description="Of this client, where the broker asks.")
    key_file: LocalPath | None = Field(None, description="Its private key; only its owner may read it.")
    keepalive_s: int = Field(15, ge=5, le=3600, description="A silence that is looked into.")
    prefix: str | None = Field(
        None,
        pattern=TOPIC,
        max_length=200,
        description='Of all its topics; else "device-agent/" and the agent\'s name.',
    )
    commands: bool = Field(True, description="Whether it listens for commands at all.")
    home_assistant: bool = Field(False, description="Whether Home Assistant is told of the devices.")
    discovery_prefix: str = Field(
        "homeassistant", pattern=TOPIC, max_length=100, description="Where Home Assistant looks for them."
    )
    overflow: Literal["drop-oldest", "thin", "refuse"] = Field(
        "drop-oldest", description="What becomes of its events when the outbox is full, as of a stream."
    )

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
