"""Delegations: questions to a Blocks AI agent, and the commands that its answer may choose.

Loaded only if the configuration has delegations.
"""
