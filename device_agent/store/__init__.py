"""What must outlive the process: the outbox towards callers and the journal of what was asked and done."""
