"""The far end of `mqtt-topic`: publishes each point's value, and takes what is sent to its `write_topic`."""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from device_agent.testing.chips import MqttChip, Physical, Publication
from device_agent_drivers.configured import MISSING, parser_of, template_of
from device_agent_drivers.simulated.commands import reader_of
from device_agent_drivers.simulated.documents import dated, documents_of
from device_agent_drivers.simulated.serial_lines import written_as

if TYPE_CHECKING:
    from device_agent_drivers.mqtt_topic import MqttTopicConfig


class SimulatedTopics(MqttChip):
    """Quantities are the points, in their units; a writable one is also an output."""

    def __init__(self, config: "MqttTopicConfig") -> None:
        empty: dict[str, Physical] = {"boolean": False, "string": "", "number": 0.0, "integer": 0}
        super().__init__(
            {name: options.safe or empty[options.type] for name, options in config.points.items()}
        )
        self._points = config.points

    def outputs(self) -> dict[str, Physical]:
        return {name: value for name, value in self._quantities.items() if self._points[name].write}

    def publishes(self) -> Iterable[Publication]:
        topics = {options.topic for options in self._points.values() if options.topic is not None}
        return [
            Publication(topic.replace("+", "it").replace("#", "it"), payload.encode())
            for topic in sorted(topics)
            for payload in self._payloads(topic)
        ]

    def _payloads(self, topic: str) -> Iterable[str]:
        members: dict[str, Any] = {}
        quantities = dated(self._points, self._quantities)
        for name, options in self._points.items():
            if options.topic != topic:
                continue
            value = quantities[name]
            wire = options.to_wire(value)
            if options.pattern is not None:
                yield written_as(options.pattern, {"value": str(wire)})
            elif options.path is None:
                yield str(wire)
            else:
                # JSON has its own spelling of true
                members[name] = value if isinstance(value, bool) and options.true is None else wire
        yield from map(json.dumps, documents_of(self._points, members))

    def saw(self, topic: str, payload: bytes) -> Iterable[Publication]:
        moved = False
        for name, options in self._points.items():
            if options.write_topic != topic or not options.write:
                continue
            match = reader_of(template_of(options.template)).fullmatch(payload.decode("utf-8", "replace"))
            value = parser_of(options)(match["value"]) if match else MISSING
            if isinstance(value, bool | int | float | str):
                self._quantities[name] = value
                moved = True
        return self.publishes() if moved else ()
