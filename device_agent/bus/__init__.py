"""Buses, one owner thread each. Import the kinds from their modules; hardware libraries load in `open`."""

from device_agent.bus.core import Bus, BusState, Handle, Source

__all__ = ["Bus", "BusState", "Handle", "Source"]
