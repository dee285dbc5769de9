"""What happens by itself: when a value or a state has lasted, at a time of day, each period.

Delegations, local rules and alerts are triggered by this.
"""
