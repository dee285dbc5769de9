"""A local stand-in of the Blocks Network and the PubNub surface beneath it: for development and tests only.

It speaks the wire protocol ``2026-05-01`` on loopback, without TLS, accepts any key of the form ``bk_<name>``
and keeps everything in memory. Nothing in it is fit to face a network.

In a test: ``async with DevNetwork() as net:``. In a thread: :class:`NetworkThread`. As a process:
:class:`NetworkProcess`, or ``python -m device_agent.testing.network``. For an unmodified official SDK:
:mod:`device_agent.testing.network.sdk`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from device_agent.testing.network.hosting import AdminClient, NetworkProcess, NetworkThread, serve
    from device_agent.testing.network.server import DevNetwork
    from device_agent.testing.network.settings import Settings, TokenLifetimes

__all__ = [
    "AdminClient",
    "DevNetwork",
    "NetworkProcess",
    "NetworkThread",
    "Settings",
    "TokenLifetimes",
    "serve",
]

_MODULES = {"DevNetwork": "server", "Settings": "settings", "TokenLifetimes": "settings"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is used: the server and its libraries cost nothing until then."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'hosting')}"), name)
