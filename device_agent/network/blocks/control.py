"""The control channel: receiving, heartbeat and presence state (protocol sections 8 and 9).

Our own long-poll: short enough that a dead connection is noticed, never torn down by a presence change, and
continued from the kept timetoken so that what came during an outage or a restart is received (W6 to W11).
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog

from device_agent.background import first_of
from device_agent.errors import NetworkError, TokenRefused, Unreachable
from device_agent.network.blocks.identity import IdentityFile
from device_agent.network.blocks.pubsub import Batch, Delivery, PubSubClient
from device_agent.network.connectivity import Connectivity, NetworkBackoff

log = structlog.get_logger("control")

POLL_LIMIT_S = 20.0
HEARTBEAT_S = 9.0
PRESENCE_LIMIT_S = 5.0
PROOF_LIMIT_S = 5.0
# Presence changes that come together (a task with three streams) are told once.
COALESCE_S = 0.05
# A control message that came twice is told by its timetoken; the network caches 100.
SEEN_MAX = 200


class ControlChannel:
    """Three background on one client: `receive`, `beat`, `tell`. Another key set means another client."""

    def __init__(
        self,
        file: IdentityFile,
        connectivity: Connectivity,
        *,
        state: Callable[[], Mapping[str, Any]],
        handle: Callable[[Delivery], None],
        renew: Callable[[str], Awaitable[None]],
        remembered: Callable[[], Awaitable[None]],
        opened: Callable[[], None],
    ) -> None:
        self._file = file
        self._connectivity = connectivity
        self._state = state
        self._handle = handle
        self._renew = renew
        self._remembered = remembered
        self._opened = opened
        self._client: PubSubClient | None = None
        self._replaced = asyncio.Event()
        self._state_changed = asyncio.Event()
        self._seen: dict[int, None] = {}
        self.subscribed = asyncio.Event()
        # Set once there is a place in the channel to go on from: before that, what is sent to us is lost, and
        # nobody may be told that we are here.
        self._placed = asyncio.Event()
        if file.identity.control_timetoken != "0":
            self._placed.set()

    def use(self, client: PubSubClient) -> None:
        """Receive over this client from now on."""
        self._client = client
        self.token_renewed()

    def token_renewed(self) -> None:
        """What waits after a refusal may go on."""
        self._replaced.set()
        self._replaced = asyncio.Event()
        self._state_changed.set()

    def state_changed(self) -> None:
        """The presence state should be told soon."""
        self._state_changed.set()

    async def _ready(self) -> PubSubClient:
        while self._client is None:
            await self._replaced.wait()
        return self._client

    async def receive(self) -> None:
        """Long-poll for ever."""
        backoff = NetworkBackoff(self._connectivity)
        region: str | None = None
        proof_due = True
        while True:
            client = await self._ready()
            try:
                if proof_due:
                    await self._prove(client)
                batch = await self._poll(client, region)
            except TokenRefused as refused:
                self.subscribed.clear()
                proof_due = True
                await self._renew(str(refused))
                await backoff.wait(refused, self._replaced)
                continue
            except NetworkError as error:
                if self.subscribed.is_set():
                    log.warning("control_channel_lost", error=str(error))
                    self.subscribed.clear()
                proof_due = True
                await backoff.wait(error)
                continue
            backoff.reset()
            proof_due = batch is None
            if batch is not None:
                region = batch.region
                await self._take_all(batch)

    async def _prove(self, client: PubSubClient) -> None:
        """A long-poll that ends without news proves nothing: ask where the channel stands, which is answered
        at once, over the same way and with the same token as messages come. Who gets no answer is deaf."""
        identity = self._file.identity
        channel = identity.control_channel
        answer = await self._connectivity.unless_back(
            client.subscribe(channel, "0", None, limit_s=PROOF_LIMIT_S)
        )
        if answer is None:
            raise Unreachable(f"subscribe to {channel}: not answered within {PROOF_LIMIT_S:g} s")
        if not self._placed.is_set():
            identity.control_timetoken = answer.timetoken
            self._placed.set()
            self._file.save()
        if not self.subscribed.is_set():
            log.info("control_channel_open")
            self.subscribed.set()
            self._opened()

    async def _poll(self, client: PubSubClient, region: str | None) -> Batch | None:
        """One long-poll; None when it brought nothing, or when there is another client to ask."""
        identity = self._file.identity
        wanted = f"meta.instance == '{identity.instance_id}' || meta.broadcast == \"true\""
        request = client.subscribe(
            identity.control_channel,
            identity.control_timetoken,
            region,
            limit_s=POLL_LIMIT_S,
            filter_expression=wanted,
        )
        poll, _ = await first_of(self._connectivity.unless_back(request), self._replaced.wait())
        return poll.result() if poll is not None else None

    async def _take_all(self, batch: Batch) -> None:
        identity = self._file.identity
        for delivery in batch.deliveries:
            self._take(delivery)
        if batch.deliveries:
            # What was begun is remembered before the place in the channel moves on.
            await self._remembered()
        if identity.control_timetoken != batch.timetoken:
            identity.control_timetoken = batch.timetoken
            self._placed.set()
            self._file.save()

    def _take(self, delivery: Delivery) -> None:
        if delivery.timetoken in self._seen:
            return
        self._seen[delivery.timetoken] = None
        if len(self._seen) > SEEN_MAX:
            self._seen.pop(next(iter(self._seen)))
        self._handle(delivery)

    async def beat(self) -> None:
        """Presence stays alive; a refused heartbeat asks for a token and disturbs nothing else."""
        backoff = NetworkBackoff(self._connectivity)
        while True:
            client = await self._ready()
            # Who does not hear must not look present: tasks would be sent to nobody.
            await self.subscribed.wait()
            try:
                await client.heartbeat(self._file.identity.control_channel, self._state(), PRESENCE_LIMIT_S)
            except NetworkError as error:
                log.debug("heartbeat_failed", error=str(error))
                if isinstance(error, TokenRefused):
                    await self._renew(str(error))
                await backoff.wait(error, self._replaced)
                continue
            backoff.reset()
            await asyncio.sleep(HEARTBEAT_S)

    async def tell(self) -> None:
        """Tell every change of the presence state, the newest one only."""
        backoff = NetworkBackoff(self._connectivity)
        while True:
            await self._state_changed.wait()
            await asyncio.sleep(COALESCE_S)
            self._state_changed.clear()
            client = await self._ready()
            await self._placed.wait()
            try:
                await client.set_state(self._file.identity.control_channel, self._state(), PRESENCE_LIMIT_S)
                backoff.reset()
            except NetworkError as error:
                self._state_changed.set()
                if isinstance(error, TokenRefused):
                    await self._renew(str(error))
                await backoff.wait(error, self._replaced)
