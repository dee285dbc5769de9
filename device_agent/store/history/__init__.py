"""The history: a local record of readings, small on the card."""
