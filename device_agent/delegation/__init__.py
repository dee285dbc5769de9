"""Questions to a Blocks AI agent: rules that ask, sessions that answer, and the little that an answer may do.

Loaded only where the configuration has a [delegations] table.
"""
