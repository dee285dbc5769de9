"""Text that others wrote: made printable, cut to what fits, and matched within a limit."""
