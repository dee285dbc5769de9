"""Simulated chips of the bundled drivers. Only a simulated board imports them, never the daemon."""
