"""The network's side, for the journey of a foreign driver."""

from callers import alice, caller, net
