"""The network's side, as for journeys."""

from support.callers import net
