"""The network's side, for the journey of a foreign driver."""

from support.callers import alice, caller, net
