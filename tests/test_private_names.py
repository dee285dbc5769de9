"""The private names of libraries that this package relies on. A version that has them no more fails here, and
not in somebody's greenhouse; `make lowest` runs this with the oldest versions that are declared."""

import inspect
from pathlib import Path

import gpiozero.pins
import paho.mqtt.client
import pubnub.endpoints.endpoint
from pubnub.endpoints.pubsub.publish import Publish
from pubnub.request_handlers.async_aiohttp import AsyncAiohttpRequestHandler

from device_agent.bus.mqtt_client import BoundedClient


def test_paho_receives_through_one_method_with_what_is_missing_of_a_packet() -> None:
    """`bus.mqtt_client` leaves out the middle of what is too large."""
    source = inspect.getsource(paho.mqtt.client.Client._packet_read)
    assert "self._sock_recv(self._in_packet['to_process'])" in source.replace('"', "'")
    assert list(inspect.signature(paho.mqtt.client.Client._sock_recv).parameters) == ["self", "bufsize"]
    client = BoundedClient(1, paho.mqtt.client.CallbackAPIVersion.VERSION2)
    assert {"packet", "to_process"} <= set(client._in_packet)


def test_pubnub_asks_its_client_for_no_more_than_ours_has() -> None:
    """`network.blocks.pubnub_library` stands in for the library's client and its handler's session."""
    source = inspect.getsource(AsyncAiohttpRequestHandler.async_request)
    for asked in ("self._session.request(", "allow_redirects=options.allow_redirects", "response.text()"):
        assert asked in source
    assert "_get_token" in inspect.getsource(pubnub.endpoints.endpoint.Endpoint)
    assert "_message" in inspect.getsource(Publish)


def test_gpiozero_numbers_its_pins_keeps_a_handle_and_calls_back() -> None:
    """`bus.gpio_gpiozero` gives an output its level in one step with its direction. Read as text: the module
    cannot be imported where the library beneath it is missing."""
    text = (Path(str(inspect.getsourcefile(gpiozero.pins))).parent / "lgpio.py").read_text()
    for name in ("self._handle", "self._number", "self._call_when_changed"):
        assert name in text
