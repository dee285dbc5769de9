"""Points an unmodified official SDK, caller or provider, at a stand-in: by environment alone.

The config document has no PubNub origin, so the SDK's messaging clients are redirected by the variables in
which ``pubnub`` itself takes the name of a request handler class; the classes are in this module.
"""

from __future__ import annotations

import os
from typing import Any

from pubnub.request_handlers.async_httpx import AsyncHttpxRequestHandler
from pubnub.request_handlers.httpx import HttpxRequestHandler

ORIGIN_VARIABLE = "DEVICE_AGENT_PUBNUB_ORIGIN"
"""``host:port`` of the PubNub surface."""


def sdk_environment(cdm_url: str, pubnub_origin: str, api_key: str = "bk_dev_local") -> dict[str, str]:
    """The variables to add to a process that runs the official SDK."""
    return {
        "BLOCKS_CDM_URL": cdm_url,
        "BLOCKS_API_KEY": api_key,
        "PUBNUB_REQUEST_HANDLER": f"{__name__}.{LocalRequestHandler.__name__}",
        "PUBNUB_ASYNC_REQUEST_HANDLER": f"{__name__}.{LocalAsyncRequestHandler.__name__}",
        ORIGIN_VARIABLE: pubnub_origin,
    }


def _redirect(pubnub: Any) -> None:
    origin = os.environ.get(ORIGIN_VARIABLE)
    if not origin:
        raise RuntimeError(f"{ORIGIN_VARIABLE} is not set: where is the stand-in?")
    pubnub.config.origin = origin
    pubnub.config.ssl = False
    # A client that is stopped during a long-poll closes the socket under its own thread, which may then wait
    # for the rest of its 310 s; as a daemon it does not keep the process alive so long.
    pubnub.config.daemon = True


class LocalRequestHandler(HttpxRequestHandler):  # type: ignore[misc]
    """The stock handler of blocking clients, on the stand-in's origin and without TLS."""

    def __init__(self, pubnub: Any) -> None:
        _redirect(pubnub)
        super().__init__(pubnub)


class LocalAsyncRequestHandler(AsyncHttpxRequestHandler):  # type: ignore[misc]
    """The stock handler of asyncio clients, on the stand-in's origin and without TLS."""

    def __init__(self, pubnub: Any) -> None:
        _redirect(pubnub)
        super().__init__(pubnub)
