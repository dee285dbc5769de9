"""The network's side, as for journeys."""

from callers import net
