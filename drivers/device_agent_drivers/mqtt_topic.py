"""A device that publishes to a local MQTT broker: a Zigbee or Wi-Fi sensor, a smart plug, another program.

Each point has a topic; its value is the payload, or what stands at `path` in a JSON payload.

Dialects that it was tried with: Zigbee2MQTT, Tasmota, ESPHome and Shelly with their words for a device that
is gone, rtl_433 with several sensors on one topic, plain payloads with text around the number.
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal

from device_agent.bus.core import Source
from device_agent.bus.mqtt import matches
from device_agent.driver import Dated, DriverError, Flag, Flagged, MqttBus, MqttMessage, Pattern, Value
from device_agent.schema import Field, field_validator, model_validator
from device_agent_drivers.configured import (
    FALSE_WORDS,
    NO_ANSWER,
    ConfiguredListener,
    ConfiguredPoints,
    PointName,
    PointOptions,
    json_splitter,
    template_of,
)
from device_agent_drivers.lines import REGEX, searched


class MqttPointOptions(PointOptions):
    """A point on the broker."""

    topic: str | None = Field(
        None, min_length=1, max_length=500, description="Where its value is published; may have + and #."
    )
    pattern: str | None = Field(
        None,
        max_length=1000,
        json_schema_extra=REGEX,
        description="For a payload that is no JSON: a regular expression whose group `value` is the value.",
    )
    write_topic: str | None = Field(None, min_length=1, max_length=500, description="Where it is set.")
    template: str = Field("{value}", max_length=1000, description="The payload that sets it; {value} in it.")
    retain: bool = Field(False, description="Ask the broker to keep what is sent, for the device's restart.")

    @field_validator("write_topic")
    @classmethod
    def _one_topic(cls, topic: str | None) -> str | None:
        if topic is not None and any(sign in topic for sign in "+#\0"):
            raise ValueError(f"{topic!r} must be one topic, without + and #")
        return topic

    @field_validator("topic")
    @classmethod
    def _topic_filter(cls, topic: str | None) -> str | None:
        levels = (topic or "").split("/")
        if (
            "\0" in (topic or "")
            or "#" in levels[:-1]
            or any(len(level) > 1 and set(level) & set("+#") for level in levels)
        ):
            raise ValueError(
                f"{topic!r} is no topic filter: + stands for a whole level, # for all at the end"
            )
        return topic

    @field_validator("pattern")
    @classmethod
    def _has_a_value(cls, pattern: str | None) -> str | None:
        try:
            if pattern is not None and "value" not in re.compile(pattern).groupindex:
                raise ValueError("`pattern` has no group for the value, such as T=(?P<value>[-0-9.]+)")
        except re.error as error:
            raise ValueError(f"`pattern` is no regular expression: {error}") from error
        return pattern

    @model_validator(mode="after")
    def _has_topics(self) -> "MqttPointOptions":
        if self.write and self.write_topic is None:
            raise ValueError("a point that can be written needs a `write_topic`")
        if self.pattern is not None and (self.path is not None or self.where):
            raise ValueError("`pattern` is for payloads that are no JSON, `path` and `where` for JSON")
        if self.where and self.path is None:
            raise ValueError("`where` is for JSON: give the `path` of the value too")
        if self.topic is None and not self.write:
            raise ValueError(
                "a point needs a `topic` to be read from, or `write = true` with a `write_topic`"
            )
        if template_of(self.template).fields != {"value"}:
            raise ValueError(f"`template` {self.template!r} must have {{value}} in it and no other name")
        return self


class MqttTopicConfig(ConfiguredPoints):
    driver: Literal["mqtt-topic"] = "mqtt-topic"
    points: Mapping[PointName, MqttPointOptions] = Field(
        min_length=1, max_length=64, description="The device's points by name."
    )
    qos: Literal[0, 1, 2] = Field(1, description="Of subscriptions and of what is sent.")
    retained: Literal["stale", "live", "ignore"] = Field(
        "stale",
        description="What a value is worth that the broker had kept: nobody knows its age, "
        "unless the message tells it (`time` of a point).",
    )
    availability: str | None = Field(
        None,
        min_length=1,
        max_length=500,
        pattern=r"^[^+#\x00]+$",
        description="Where the device, or its broker, says `offline`: then none of its values is known.",
    )


class MqttTopic(ConfiguredListener[MqttTopicConfig, MqttBus]):
    """A message gives the points it holds; each keeps its own age."""

    example = 'points.power = { unit = "W", topic = "zigbee2mqtt/plug", path = "power" }'

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        points = self.config.points
        self._by_topic: dict[str, list[str]] = {}
        for name, options in points.items():
            if options.topic is not None:
                self._by_topic.setdefault(options.topic, []).append(name)
        self._split = {
            topic: json_splitter({name: points[name] for name in names if points[name].path})
            for topic, names in self._by_topic.items()
        }
        self._patterns = {
            name: Pattern(one.pattern) for name, one in points.items() if one.pattern is not None
        }
        self.messages_garbage = 0

    @classmethod
    def claims(cls, config: MqttTopicConfig) -> tuple[str, ...]:
        return tuple(f"topic {options.write_topic}" for options in config.points.values() if options.write)

    @staticmethod
    def simulator(config: MqttTopicConfig) -> Any:
        from device_agent_drivers.simulated.mqtt_topic import SimulatedTopics

        return SimulatedTopics(config)

    def open(self) -> None:
        self._last = {}
        self._sent = {}
        if self.safe_of(self.config):
            self.safe()

    def notes(self) -> Mapping[str, int | str]:
        bad = {"messages_not_understood": self.messages_garbage} if self.messages_garbage else {}
        return {**super().notes(), **bad}

    def listen(self) -> Source:
        topics = dict.fromkeys((*self._by_topic, *filter(None, (self.config.availability,))))
        return self.bus.subscribe(tuple(topics), qos=self.config.qos)

    # -- messages in --------------------------------------------------------------------------------------

    def feed(self, chunk: MqttMessage) -> list[dict[str, Value | Flagged]]:
        if chunk.topic == self.config.availability and _says_offline(chunk.payload):
            unknown = {name: NO_ANSWER for names in self._by_topic.values() for name in names}
            self._last.update(unknown)
            return [dict(unknown)]
        filters = [wanted for wanted in self._by_topic if matches(wanted, chunk.topic)]
        if not filters or (chunk.retained and self.config.retained == "ignore"):
            return []
        raw: dict[str, Any] = {}
        for wanted in filters:
            raw |= self._raw(chunk, wanted)
        if not raw:
            self.messages_garbage += chunk.topic != self.config.availability
            return []
        values = self._said(raw)
        if chunk.retained and self.config.retained == "stale" and not isinstance(values, Dated):
            values = {name: _stale(value) for name, value in values.items()}
            self._last.update(values)
        return [values]

    def _raw(self, message: MqttMessage, wanted: str) -> dict[str, Any]:
        """The values of the points with this topic; empty for a payload that holds none."""
        if not message.payload:  # emptied: nothing is known any more
            return dict.fromkeys(self._by_topic[wanted])
        # One byte of another code page costs its own member; such a text can be no value.
        text = message.payload.decode("utf-8-sig", "surrogateescape").rstrip("\0")
        found = self._split[wanted](text) or {}
        for name in self._by_topic[wanted]:
            options = self.config.points[name]
            if options.pattern is not None:
                match = searched(self._patterns[name], text)
                if match is not None and match["value"] is not None:
                    found[name] = match["value"]
            elif options.path is None:
                found[name] = text
        return found

    # -- commands out -------------------------------------------------------------------------------------

    def write(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Waits for the broker, not for the device: what the device made of it comes by its own topic."""
        for name, value in values.items():
            options = self.config.points[name]
            if options.write_topic is None:
                raise DriverError(f"point {name} has no write_topic")
            template = template_of(options.template)
            if options.type == "string" and (sign := template.ending(str(value))):
                raise DriverError(f"{name}: {value!r} holds {sign!r} and would be more than its value")
            try:
                payload = template.render({"value": options.to_wire(value)})
            except ValueError as error:
                raise DriverError(
                    f"template {options.template!r} does not take {value!r}: {error}"
                ) from error
            self.bus.publish(
                options.write_topic, payload.encode("utf-8"), qos=self.config.qos, retain=options.retain
            )
            self._sent = {**self._sent, name: value}
        return {}


def _says_offline(payload: bytes) -> bool:
    """As Zigbee2MQTT (`{"state": "offline"}`), Tasmota, ESPHome (`offline`) and Shelly (`false`) say it."""
    text = payload.decode("utf-8", "replace").strip()
    with suppress(ValueError, RecursionError):
        document = json.loads(text)
        text = str(document.get("state") if isinstance(document, dict) else document)
    return text.lower() in {"offline", *FALSE_WORDS}


def _stale(value: Any) -> Value | Flagged:
    return value if isinstance(value, Flagged) else Flagged(value, Flag.STALE)
