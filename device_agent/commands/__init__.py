"""A command's way: who may, what it would do, whether it may move, and doing it."""
