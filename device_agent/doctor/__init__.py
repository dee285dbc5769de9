"""What is missing on this machine, why it matters, and the command that mends it. Reads; changes nothing."""
