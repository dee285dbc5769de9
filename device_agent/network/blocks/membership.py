"""Membership of the network: one state with a reason, and the loop that joins and stays joined."""

import asyncio
from collections.abc import Callable
from enum import StrEnum

import structlog

from device_agent.background import first_of
from device_agent.errors import NetworkError, NoKey, Revoked, Unreachable
from device_agent.network.blocks.joiner import Joiner
from device_agent.network.blocks.token_renewal import TokenRenewal
from device_agent.network.connectivity import Connectivity, NetworkBackoff

log = structlog.get_logger("network")

# With a revoked key, or forced offline, the network is asked this seldom: no login loop, and no need for a
# person to come by when it is allowed again.
REVOKED_RETRY_S = 600.0


class MembershipState(StrEnum):
    """What `device-agent status` shows."""

    JOINING = "joining"
    """The first try has not ended yet."""
    JOINED = "joined"
    """If there is a reason: the token could not be renewed; the one before is used as long as it serves."""
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    """The network answers, and not as it should: an error, or not what the protocol says."""
    REVOKED = "revoked"
    """The API key is not valid any more; a person must act."""
    FORCED_OFFLINE = "forced offline"
    """An administrator of the network took the agent offline."""
    NO_KEY = "no API key"
    """There is none, or none that may be used; the reason says where it was looked for."""
    NONE = "no network"
    """`network.kind = "none"`."""
    LEAVING = "leaving"


def state_after(state: MembershipState, error: NetworkError | None) -> MembershipState:
    """The state after a try to join: `error` is why it failed, None if it did not."""
    if error is None:
        return MembershipState.JOINED
    if isinstance(error, Revoked):
        forced = error.code == "AGENT_FORCED_OFFLINE"
        return MembershipState.FORCED_OFFLINE if forced else MembershipState.REVOKED
    if state is MembershipState.JOINED:
        return state
    if isinstance(error, NoKey):
        return MembershipState.NO_KEY
    return MembershipState.UNREACHABLE if isinstance(error, Unreachable) else MembershipState.REFUSED


class Membership:
    """`run` joins, renews the token in time and joins again. Nothing that the network does ends it.

    `on_joined` is called after each successful try, before the state changes.
    """

    def __init__(
        self, joiner: Joiner, connectivity: Connectivity, renewal: TokenRenewal, on_joined: Callable[[], None]
    ) -> None:
        self.state = MembershipState.JOINING
        self.reason = "not joined yet"
        self._joiner = joiner
        self._connectivity = connectivity
        self._renewal = renewal
        self._on_joined = on_joined
        self._joined = asyncio.Event()
        self._retry = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Membership {self.state}{': ' if self.reason else ''}{self.reason}>"

    @property
    def joined(self) -> bool:
        return self.state is MembershipState.JOINED

    async def until_joined(self) -> None:
        await self._joined.wait()

    def try_again(self) -> None:
        """A person says that what kept the agent out has been put right: ask now."""
        self._retry.set()

    def stay_away(self) -> None:
        """There is no network to join."""
        self._change(MembershipState.NONE, 'network.kind = "none"')

    def leave(self) -> None:
        """The agent stops."""
        self._change(MembershipState.LEAVING, "")

    async def run(self) -> None:
        """Until cancelled."""
        backoff = NetworkBackoff(self._connectivity)
        while True:
            self._renewal.begin()
            error = await self._try()
            if error is None:
                backoff.reset()
                await self._renewal.until_due()
            else:
                await first_of(self._pause(error, backoff), self._joiner.until_key_changes())

    async def _pause(self, error: NetworkError, backoff: NetworkBackoff) -> None:
        if isinstance(error, (Revoked, NoKey)):
            self._retry.clear()
            await first_of(self._retry.wait(), limit_s=REVOKED_RETRY_S)
        else:
            await backoff.wait(error)

    async def _try(self) -> NetworkError | None:
        try:
            await self._joiner.join()
        except NetworkError as error:
            self._change(state_after(self.state, error), str(error))
            return error
        self._on_joined()
        self._change(MembershipState.JOINED, "")
        return None

    def _change(self, state: MembershipState, reason: str) -> None:
        before, reason_before = self.state, self.reason
        self.state, self.reason = state, reason
        if state is MembershipState.JOINED:
            self._joined.set()
        else:
            self._joined.clear()
        if state in (MembershipState.REVOKED, MembershipState.FORCED_OFFLINE):
            log.error("not_allowed", state=state, error=reason, again_in_s=REVOKED_RETRY_S)
        elif state is MembershipState.NONE:
            log.info("no_network", why=reason)
        elif reason and reason != reason_before:
            log.warning("not_joined", state=state, error=reason)
        elif state is MembershipState.JOINED and not reason:
            log.info("token_renewed" if before is state else "joined", instance=self._joiner.instance_id)
