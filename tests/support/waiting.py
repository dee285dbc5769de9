"""Waiting for a condition, with a limit."""

import asyncio
import inspect
import os
import threading
import time
from collections.abc import Callable
from typing import Any

# How much longer than usual everything may take on this machine: 4 on a Pi Zero, 12 where it is emulated.
SLOWNESS = float(os.environ.get("DEVICE_AGENT_SLOWNESS", "1"))
LIMIT_S = 30.0 * SLOWNESS


def until(condition: Callable[[], Any], what: str = "the condition", limit_s: float = LIMIT_S) -> Any:
    """Wait for a condition; its value."""
    deadline = time.monotonic() + limit_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {limit_s:g} s: {what}")
        threading.Event().wait(0.02)


async def until_async(
    condition: Callable[[], Any], what: str | Callable[[], str] = "the condition", limit_s: float = LIMIT_S
) -> Any:
    """The same in an event loop; the condition may be a coroutine function.

    `what` may be a function that tells what there is instead.
    """
    deadline = time.monotonic() + limit_s
    while not (value := await _now(condition)):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {limit_s:g} s: {what() if callable(what) else what}")
        await asyncio.sleep(0.005)
    return value


async def _now(condition: Callable[[], Any]) -> Any:
    value = condition()
    return await value if inspect.isawaitable(value) else value
