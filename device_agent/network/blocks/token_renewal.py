"""When the control token is renewed: before it ends, and soon after it was refused.

The renewal itself is a new join: `Membership.run` calls `Joiner.join`. The tokens of streams are renewed by
`StreamChannel.renew_token`, and the token of the HTTP API by `Joiner.refresh_access`.
"""

import asyncio
from collections.abc import Callable

import structlog

from device_agent.background import first_of
from device_agent.clock import Clock

log = structlog.get_logger("network")

# A token is replaced when this share of its life is over, and never later than a minute before its end.
RENEW_AT = 0.75
RENEW_MARGIN_S = 60.0
# A token that does not say when it ends is replaced this often, so that an idle agent stays joined
# (docs/protocol.md, W6).
RENEW_UNKNOWN_S = 1800.0
# Several requests that are refused at once lead to one renewal.
RENEW_MIN_INTERVAL_S = 2.0


def renewal_delay_s(life_s: float | None) -> float:
    """Seconds from now to the renewal of a token that ends in `life_s`; None: it does not say."""
    if life_s is None:
        return RENEW_UNKNOWN_S
    return max(RENEW_MIN_INTERVAL_S, min(life_s * RENEW_AT, life_s - RENEW_MARGIN_S))


class TokenRenewal:
    """Waits until the control token has to be replaced. `token_life_s` tells how long it serves still."""

    def __init__(self, clock: Clock, token_life_s: Callable[[], float | None]) -> None:
        self._clock = clock
        self._token_life_s = token_life_s
        self._requested = asyncio.Event()

    def __repr__(self) -> str:
        return f"<TokenRenewal {'requested' if self._requested.is_set() else 'not requested'}>"

    def request(self, why: str) -> None:
        """The token was refused."""
        if not self._requested.is_set():
            log.info("token_refused", why=why)
            self._requested.set()

    def begin(self) -> None:
        """A new token is asked for now: requests from before are served by it."""
        self._requested.clear()

    async def until_due(self) -> None:
        """Called with a new token: returns when it has to be replaced."""
        joined_s = self._clock.monotonic_s()
        await first_of(self._requested.wait(), limit_s=renewal_delay_s(self._token_life_s()))
        await asyncio.sleep(max(0.0, joined_s + RENEW_MIN_INTERVAL_S - self._clock.monotonic_s()))
