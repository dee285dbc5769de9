"""The outbox: what callers have not been sent yet, over outages, crashes and power cuts."""
