"""A real broker for the tests of the MQTT handle."""

from support.mosquitto import broker
