"""device-agent: real hardware as an agent on the Blocks Network."""

__version__ = "0.1.0"
