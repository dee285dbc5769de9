"""Local rules and alerts. Loaded only if the configuration has some."""
