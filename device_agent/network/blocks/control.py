"""The control channel: receiving messages, heartbeat and presence state (docs/protocol.md).

Our own long-poll: short enough that a dead connection is noticed, never interrupted by a presence change, and
continued from the saved timetoken, so that what came during an outage or a restart is received (W6 to W11).
"""

import asyncio
import itertools
from collections.abc import Mapping
from typing import Any, Protocol

import structlog

from device_agent.background import Turns, first_of
from device_agent.errors import NetworkError, Refused, TokenRefused, Unreachable
from device_agent.network.blocks.clients import Clients
from device_agent.network.blocks.identity import IdentityFile
from device_agent.network.blocks.long_poll import Batch, Delivery
from device_agent.network.blocks.pubsub import NOW, PubSubClient
from device_agent.network.connectivity import Connectivity, NetworkBackoff

log = structlog.get_logger("control")

POLL_LIMIT_S = 20.0
HEARTBEAT_S = 9.0
PRESENCE_LIMIT_S = 5.0
# How often it is looked for another process under our instance id, in heartbeats, and how many must show it.
TWIN_EVERY = 7
TWIN_BEATS = 2
# Presence changes that come together (a task with three streams) are published once.
COALESCE_S = 0.05
# A message that is delivered twice is recognised by its timetoken; the network caches 100.
SEEN_MAX = 200


class ControlOwner(Protocol):
    """What the control channel needs of the agent."""

    def presence(self) -> Mapping[str, Any]:
        """The presence state now."""

    def on_control_message(self, delivery: Delivery) -> None:
        """A message came, for the first time."""

    async def remembered(self) -> None:
        """Returns when what the messages so far began would be known after a crash."""

    def on_token_refused(self, why: str) -> None:
        """The control token has to be renewed."""

    def on_listening(self) -> None:
        """Messages are received again; earlier ones may have been missed."""


class ControlChannel:
    """Loops that share the control client: `receive`, `keep_place`, `send_heartbeats`, `publish_state`."""

    def __init__(
        self, file: IdentityFile, clients: Clients, connectivity: Connectivity, owner: ControlOwner
    ) -> None:
        self._file = file
        self._clients = clients
        self._connectivity = connectivity
        self._owner = owner
        self._client_changed = asyncio.Event()
        self._state_changed = asyncio.Event()
        self._listening = asyncio.Event()
        self._twin_beats = 0
        self.blind = ""
        """Why another process under our instance id cannot be noticed; "" while it can."""
        self._way = connectivity.way("reception on the control channel")
        self._way.due.set()
        self._seen: dict[int, None] = {}
        self._reached: tuple[str, str] | None = None
        """Channel and timetoken up to which messages were handled; the file has one that is remembered."""
        self._moved = asyncio.Event()
        self.failures = 0
        """Messages that were skipped because of a fault of ours."""
        # Set once there is a timetoken to go on from: before that, what is sent to us is lost, and presence
        # must not be published.
        self._placed = asyncio.Event()
        if file.identity.control_timetoken != "0":
            self._placed.set()

    def __repr__(self) -> str:
        listening = "listening" if self._listening.is_set() else "not listening"
        return f"<ControlChannel {self._file.identity.control_channel} {listening}>"

    def client_changed(self) -> None:
        """There is another control client or token: what waits after a refusal goes on."""
        self._client_changed.set()
        self._client_changed = asyncio.Event()
        self._state_changed.set()

    def state_changed(self) -> None:
        """The presence state has to be published soon."""
        self._state_changed.set()

    async def _client(self) -> PubSubClient:
        while not self._clients.ready:
            await self._client_changed.wait()
        return self._clients.control

    async def receive(self) -> None:
        """Long-poll until cancelled."""
        backoff = NetworkBackoff(self._connectivity)
        region: str | None = None
        turns = Turns()
        while True:
            client = await self._client()
            try:
                while self._way.is_due:
                    await self._connectivity.unless_back(self._prove(client))
                batch = await self._poll(client, region)
            except NetworkError as error:
                if self._listening.is_set() and not isinstance(error, TokenRefused):
                    log.warning("control_channel_lost", error=str(error))
                self._listening.clear()
                self._way.failed()
                await self._wait_after(error, backoff)
                continue
            backoff.reset()
            if batch is not None:
                region = batch.region
                for delivery in batch.deliveries:
                    self._handle(delivery)
                    await turns.give()
                self._reached = (self._file.identity.control_channel, batch.timetoken)
                self._moved.set()
            else:
                self._way.due.set()

    async def _prove(self, client: PubSubClient) -> None:
        """Ask for the channel's current timetoken, which is answered at once.

        A long-poll that ends without a message proves nothing; this goes the same way, with the same token.
        """
        identity = self._file.identity
        channel = identity.control_channel
        with self._way.proof() as limit_s:
            answer = await client.subscribe(channel, NOW, None, limit_s=limit_s)
            if answer is None:
                raise Unreachable(f"subscribe to {channel}: not answered within {limit_s:g} s")
        if not self._placed.is_set():
            self._place(answer.timetoken)
        if not self._listening.is_set():
            log.info("control_channel_open")
            self._listening.set()
            self._owner.on_listening()

    async def _poll(self, client: PubSubClient, region: str | None) -> Batch | None:
        """One long-poll; None when it brought nothing, or when reception is to be proven first."""
        identity = self._file.identity
        channel, reached = self._reached or ("", "")
        request = client.subscribe(
            identity.control_channel,
            reached if channel == identity.control_channel else identity.control_timetoken,
            region,
            limit_s=POLL_LIMIT_S,
            filter_expression=f"meta.instance == '{identity.instance_id}' || meta.broadcast == \"true\"",
        )
        poll, *_ = await first_of(
            self._connectivity.unless_back(request), self._client_changed.wait(), self._way.due.wait()
        )
        return poll.result() if poll is not None else None

    def _handle(self, delivery: Delivery) -> None:
        if delivery.timetoken in self._seen:
            return
        self._seen[delivery.timetoken] = None
        if len(self._seen) > SEEN_MAX:
            self._seen.pop(next(iter(self._seen)))
        try:
            self._owner.on_control_message(delivery)
        except Exception:
            # One message costs one message: the network delivers it again to whoever stops at it.
            self.failures += 1
            log.exception("control_message_failed", failures=self.failures)

    async def keep_place(self) -> None:
        """Save how far messages were received, behind what they began: no message waits for the disk."""
        while True:
            await self._moved.wait()
            self._moved.clear()
            identity, reached = self._file.identity, self._reached
            await self._owner.remembered()
            if reached is not None and reached[0] == identity.control_channel:
                identity.control_timetoken = reached[1]
                await asyncio.to_thread(self._file.save)

    def _place(self, timetoken: str) -> None:
        self._file.identity.control_timetoken = timetoken
        self._placed.set()
        self._file.save()

    async def send_heartbeats(self) -> None:
        """Keep the presence alive; a refused heartbeat requests a token and disturbs nothing else."""
        backoff = NetworkBackoff(self._connectivity)
        for beat in itertools.count():
            client = await self._client()
            # An agent that does not receive must not look present: tasks would be sent to nobody.
            await self._listening.wait()
            try:
                if beat % TWIN_EVERY == 1 or self._twin_beats:
                    await self._look_for_twin(client)
                await client.heartbeat(
                    self._file.identity.control_channel, self._owner.presence(), PRESENCE_LIMIT_S
                )
            except NetworkError as error:
                log.debug("heartbeat_failed", error=str(error))
                self._way.due.set()
                await self._wait_after(error, backoff)
                continue
            backoff.reset()
            await asyncio.sleep(HEARTBEAT_S)

    async def _look_for_twin(self, client: PubSubClient) -> None:
        """Right before our own heartbeat, that of another process with our instance id is the newest."""
        own = self._owner.presence().get("startedAt")
        try:
            state = await client.state(self._file.identity.control_channel, PRESENCE_LIMIT_S)
        except Refused as error:  # a token need not allow it
            if not self.blind:
                log.warning("presence_not_read", error=str(error), why="a second board with our instance id")
            self.blind = f"two boards under one instance id cannot be noticed: {error}"
            return
        except NetworkError as error:
            log.debug("presence_not_read", error=str(error))
            return
        self.blind = ""
        began = state.get("startedAt")
        self._twin_beats = self._twin_beats + 1 if began not in (None, own) else 0
        if self._twin_beats == TWIN_BEATS:
            log.error(
                "instance_runs_twice",
                instance=self._file.identity.instance_id,
                other_started_at=began,
                remedy="stop one, or delete identity.json in the state directory of the copy",
            )

    @property
    def twin(self) -> str:
        """That another process works under our instance id, as a sentence; "" while none is seen."""
        return "another process runs under this instance id" if self._twin_beats >= TWIN_BEATS else ""

    async def publish_state(self) -> None:
        """Publish the newest presence state after each change."""
        backoff = NetworkBackoff(self._connectivity)
        while True:
            await self._state_changed.wait()
            await asyncio.sleep(COALESCE_S)
            self._state_changed.clear()
            client = await self._client()
            await self._placed.wait()
            try:
                await client.set_state(
                    self._file.identity.control_channel, self._owner.presence(), PRESENCE_LIMIT_S
                )
                backoff.reset()
            except NetworkError as error:
                self._state_changed.set()
                await self._wait_after(error, backoff)

    async def _wait_after(self, error: NetworkError, backoff: NetworkBackoff) -> None:
        if isinstance(error, TokenRefused):
            self._owner.on_token_refused(str(error))
        await backoff.wait(error, self._client_changed)
