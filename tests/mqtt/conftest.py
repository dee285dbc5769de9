"""A real broker for the tests of the door."""

from support.mosquitto import broker
