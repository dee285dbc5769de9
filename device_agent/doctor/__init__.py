"""What is missing on this machine, why it matters, and the command that corrects it. Changes nothing."""
