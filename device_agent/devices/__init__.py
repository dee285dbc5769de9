"""Devices and buses at work: readings from the driver to the dispatcher, and recovery."""
