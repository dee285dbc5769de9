"""Why there is no answer, one sentence each, for the daemon and for the command line."""

import importlib.util


def too_much(limit_bytes: int) -> str:
    return (
        f"the answer would be larger than {limit_bytes / 1e6:g} MB: ask for fewer devices, a shorter time, "
        "or one row every so many seconds (every_s)"
    )


def can_draw() -> bool:
    """Whether the optional library is installed, without loading it."""
    return importlib.util.find_spec("PIL") is not None


def no_pillow() -> str:
    return (
        "a picture needs the optional library Pillow: run `pip install 'device-agent[plot]'`, or ask for csv"
    )


def disabled() -> str:
    return "this agent keeps no history (history.enabled = false in its configuration)"


def unreadable(path: str, error: Exception) -> str:
    return f"the history in {path} cannot be read: {error}"
