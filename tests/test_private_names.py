"""The private names of libraries that this package relies on. A version that has them no more fails here, and
not in somebody's greenhouse; `make lowest` runs this with the oldest versions that are declared."""

import inspect
import subprocess
import sys
from pathlib import Path

import gpiozero.pins
import paho.mqtt.client
import pubnub.endpoints.endpoint
from pubnub.endpoints.pubsub.publish import Publish
from pubnub.endpoints.pubsub.subscribe import Subscribe

from device_agent.bus.mqtt_client import BoundedClient


def test_paho_receives_through_one_method_with_what_is_missing_of_a_packet() -> None:
    """`bus.mqtt_client` leaves out the middle of what is too large."""
    source = inspect.getsource(paho.mqtt.client.Client._packet_read)
    assert "self._sock_recv(self._in_packet['to_process'])" in source.replace('"', "'")
    assert list(inspect.signature(paho.mqtt.client.Client._sock_recv).parameters) == ["self", "bufsize"]
    client = BoundedClient(1, paho.mqtt.client.CallbackAPIVersion.VERSION2)
    assert {"packet", "to_process"} <= set(client._in_packet)


def test_what_is_left_out_of_aiohttp_and_of_a_connection_by_tls() -> None:
    """`network.blocks.http_library` says so in the environment of the import, and to asyncio."""
    code = (
        "from asyncio import sslproto\n"
        "from device_agent.network.blocks.http_library import aiohttp\n"
        "empty = aiohttp.connector._SSL_CONTEXT_VERIFIED\n"
        "assert not empty.get_ca_certs(), 'it trusts nobody'\n"
        "from frozenlist import FrozenList, PyFrozenList\n"
        "assert FrozenList is PyFrozenList\n"
        "assert len(sslproto.SSLProtocol(None, None, empty, None)._ssl_buffer) == 32_768\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_pubnub_asks_its_client_for_no_more_than_ours_has() -> None:
    """`network.blocks.pubnub_library` stands in for the library's client."""
    assert "_get_token" in inspect.getsource(pubnub.endpoints.endpoint.Endpoint)
    assert "_subscription_manager" in inspect.getsource(Subscribe)
    assert "_message" in inspect.getsource(Publish)


def test_gpiozero_numbers_its_pins_keeps_a_handle_and_calls_back() -> None:
    """`bus.gpio_gpiozero` gives an output its level in one step with its direction. Read as text: the module
    cannot be imported where the library beneath it is missing."""
    text = (Path(str(inspect.getsourcefile(gpiozero.pins))).parent / "lgpio.py").read_text()
    for name in ("self._handle", "self._number", "self._call_when_changed"):
        assert name in text


def test_paho_asks_for_a_sign_of_life_and_says_when_it_came() -> None:
    """`bus.mqtt_client` knows by it how old a command may be."""
    client = paho.mqtt.client.Client
    assert "self._ping_t = time_func()" in inspect.getsource(client._send_pingreq)
    assert "self._ping_t = 0" in inspect.getsource(client._handle_pingresp)
    assert "return self._handle_pingresp()" in inspect.getsource(client._packet_handle)
