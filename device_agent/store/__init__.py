"""What must outlive the process: the outbox, the Journal and the history."""
