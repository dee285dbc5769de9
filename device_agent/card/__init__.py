"""The agent card: made from the configuration, checked, and compared with the published one."""
