"""Open streams: reading, the end, and one channel for all tasks of a shared stream."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from device_agent.background import BackgroundTasks
from device_agent.network import Format, OutgoingMessage, StreamSpec, Unreadable
from device_agent.network.blocks import open_stream as module
from device_agent.network.blocks.messages import StreamReader, encode
from device_agent.network.blocks.open_stream import FROM_CACHE, FROM_NOW, OpenStream
from device_agent.network.blocks.shared_streams import SharedStreams
from device_agent.network.blocks.stream_channel import StreamChannel
from device_agent.network.connectivity import Connectivity
from device_agent.testing.clock import SteppedClock
from support.fake_pubsub import REFUSED, SILENCE, TOKEN_REFUSED, UNREACHABLE, FakePubSub, batch, delivery

SHARED = StreamSpec("telemetry", "s1", "outbound", "events", "shared")


class Tokens:
    """Notes what is asked of the setup function."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def first(self, spec: StreamSpec, *, announced: bool) -> str:
        self.asked.append("announced" if announced else "first")
        await asyncio.sleep(0)
        return "token"

    async def ask(self, spec: StreamSpec, phase: str) -> str:
        self.asked.append(phase)
        return ""

    async def renew(self, spec: StreamSpec) -> str:
        self.asked.append("renew")
        return "new"


class Closed:
    """A `MessageSource` with nothing left."""

    pending_bytes = 0
    closed = True
    next_number = 8

    async def until_ready(self) -> None: ...

    def next_message(self, limit_bytes: int) -> None: ...

    def ack(self, message: OutgoingMessage) -> None: ...


class Open(Closed):
    """A `MessageSource` that waits for ever."""

    closed = False

    async def until_ready(self) -> None:
        await asyncio.Event().wait()


@pytest.fixture
def client() -> FakePubSub:
    return FakePubSub("writer", "old")


@pytest.fixture
def tokens() -> Tokens:
    return Tokens()


@pytest.fixture
async def background() -> AsyncIterator[BackgroundTasks]:
    made = BackgroundTasks("test")
    yield made
    await made.close()
    assert not made.failures


@pytest.fixture(autouse=True)
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SUBSCRIBE_GRACE_S", 0.0)


def opened(client: FakePubSub, tokens: Tokens, background: BackgroundTasks, spec: StreamSpec) -> OpenStream:
    clock = SteppedClock()
    connectivity = Connectivity(clock)
    connectivity.answered()
    channel = StreamChannel(spec, "greenhouse", client, tokens, connectivity)  # type: ignore[arg-type]
    return OpenStream(channel, connectivity, clock, background)


@pytest.fixture
def stream(client: FakePubSub, tokens: Tokens, background: BackgroundTasks) -> OpenStream:
    spec = StreamSpec("console", "s1", "bidirectional", "events", "dedicated")
    return opened(client, tokens, background, spec)


def events(number: int, *items: Any) -> list[Any]:
    encoded = encode("s1", "events", OutgoingMessage(number, tuple(json.dumps(i).encode() for i in items), 1))
    return [delivery(json.loads(text), number, sender="caller") for text in encoded]


async def take(stream: OpenStream, count: int) -> list[Any]:
    items = []
    async with asyncio.timeout(10):
        async for inbound in stream.inbound():
            items.append((inbound.item, inbound.sender))
            if len(items) == count:
                return items
    raise AssertionError(f"the stream ended after {items}")


# -- reading ------------------------------------------------------------------------------------------------


async def test_what_callers_send_comes_as_the_network_has_it_and_not_what_we_send(
    stream: OpenStream, client: FakePubSub
):
    stream.start(None, 12.0, resumed=False)
    client.batches.put_nowait(batch(5, *events(2, "a", "b"), *events(1, "c")))
    assert await take(stream, 3) == [("a", "caller"), ("b", "caller"), ("c", "caller")]
    await client.until(lambda: len(client.polls) == 2)
    assert client.polls == [(FROM_CACHE, "meta.sender != 'writer'"), ("5", "meta.sender != 'writer'")]
    await stream.close(end=False)


@pytest.mark.parametrize(
    ("format_", "resumed", "position"),
    [
        ("events", False, FROM_CACHE),
        ("events", True, FROM_CACHE),
        ("bytes", False, FROM_CACHE),
        ("bytes", True, FROM_NOW),
    ],
)
async def test_bytes_that_an_earlier_process_read_are_not_read_again(
    client: FakePubSub,
    tokens: Tokens,
    background: BackgroundTasks,
    format_: Format,
    resumed: bool,
    position: str,
):
    stream = opened(client, tokens, background, StreamSpec("c", "s1", "inbound", format_, "dedicated"))
    stream.start(None, 12.0, resumed=resumed)
    await client.until(lambda: client.polls)
    assert client.polls[0] == (position, "")
    await stream.close(end=False)


async def test_malformed_messages_and_outages_cost_nothing_else(stream: OpenStream, client: FakePubSub):
    stream.start(None, 12.0, resumed=False)
    client.batches.put_nowait(UNREACHABLE)
    client.batches.put_nowait(batch(5, delivery("no stream message"), *events(1, "a")))
    (bad, _), good = await take(stream, 2)
    assert isinstance(bad, Unreadable)
    assert good == ("a", "caller")
    await stream.close(end=False)


async def test_a_message_that_the_reader_fails_at_costs_itself(
    stream: OpenStream, client: FakePubSub, monkeypatch: pytest.MonkeyPatch
):
    feed = StreamReader.feed

    def fail_at(reader: StreamReader, payload: Any, *more: Any) -> Any:
        return {}["missing"] if payload == "bad" else feed(reader, payload, *more)

    monkeypatch.setattr(StreamReader, "feed", fail_at)
    stream.start(None, 12.0, resumed=False)
    client.batches.put_nowait(batch(5, delivery("bad"), *events(1, "a")))
    (bad, _), good = await take(stream, 2)
    assert isinstance(bad, Unreadable)
    assert good == ("a", "caller")
    await client.until(lambda: len(client.polls) == 2)
    assert client.polls[1][0] == "5", "it is not asked for again"
    await stream.close(end=False)


async def test_a_refused_token_is_renewed(stream: OpenStream, client: FakePubSub, tokens: Tokens):
    stream.start(None, 12.0, resumed=False)
    client.batches.put_nowait(TOKEN_REFUSED)
    client.batches.put_nowait(batch(5, *events(1, "a")))
    await take(stream, 1)
    assert (tokens.asked, client.token) == (["renew"], "new")
    await stream.close(end=False)


# -- proof --------------------------------------------------------------------------------------------------


def step(stream: OpenStream, seconds: float) -> None:
    stream._clock.step(seconds)  # type: ignore[attr-defined]


async def test_both_ways_are_proven_while_somebody_asks_and_nothing_else_goes(
    stream: OpenStream, client: FakePubSub
):
    stream.start(Open(), 12.0, resumed=False)
    await client.until(lambda: client.polls)
    step(stream, 2)
    assert stream.silent_s(9) == 2
    await asyncio.sleep(0.01)
    assert (len(client.polls), client.published) == (1, []), "it is not due yet"
    step(stream, 2)
    assert stream.silent_s(9) == 4
    await client.until(lambda: stream.silent_s(9) == 0)
    ((channel, body),) = client.published
    message = json.loads(body)
    assert (channel, message["seq"], message["events"]) == ("stream.greenhouse.s1", 0, [])
    await client.until(lambda: len(client.polls) == 3)
    places = [position for position, _ in client.polls]
    assert places == [FROM_CACHE, FROM_NOW, FROM_CACHE], "what came meanwhile is not passed over"
    await stream.close(end=False)


async def start_a_proof_without_an_answer(stream: OpenStream, client: FakePubSub) -> None:
    client.channel_ends = SILENCE
    stream.start(None, 12.0, resumed=False)
    await client.until(lambda: client.polls)
    step(stream, 4)
    stream.silent_s(9)
    await client.until(lambda: len(client.polls) == 2)


async def test_what_comes_while_the_way_in_is_proven_is_read(stream: OpenStream, client: FakePubSub):
    """On a slow link the long-poll is answered no sooner than the proof, however often one is due."""
    await start_a_proof_without_an_answer(stream, client)
    client.batches.put_nowait(batch(5, *events(1, "a")))
    assert await take(stream, 1) == [("a", "caller")]
    await stream.close(end=False)


async def test_a_proof_from_before_an_outage_is_given_up_after_it(stream: OpenStream, client: FakePubSub):
    await start_a_proof_without_an_answer(stream, client)
    client.channel_ends = batch(100)
    stream._connectivity.lost("no answer")
    stream._connectivity.answered()
    await client.until(lambda: stream.channel.inward.silent_s(9) == 0)
    await stream.close(end=False)


@pytest.mark.parametrize("refusal", [REFUSED, UNREACHABLE])
@pytest.mark.parametrize("way", ["inward", "outward"])
async def test_a_way_that_refuses_or_swallows_goes_on_being_silent(
    stream: OpenStream, client: FakePubSub, way: str, refusal: Exception
):
    if way == "inward":
        client.channel_ends = refusal
    else:
        client.answers.extend([refusal] * 50)
    stream.start(Open(), 12.0, resumed=False)
    await client.until(lambda: client.polls)
    step(stream, 4)
    stream.silent_s(9)
    await client.until(lambda: stream._connectivity.trouble)
    assert ("reception" in stream._connectivity.trouble) == (way == "inward")
    assert not stream._connectivity.serves
    assert stream.silent_s(9) == 4
    await stream.close(end=False)
    assert stream._connectivity.serves, "nobody uses it any more"


async def test_what_comes_and_what_is_accepted_are_proofs_too(stream: OpenStream, client: FakePubSub):
    stream.start(Open(), 12.0, resumed=False)
    await client.until(lambda: client.polls)
    step(stream, 2)
    client.batches.put_nowait(batch(5, *events(1, "a")))
    await take(stream, 1)
    assert stream.channel.inward.silent_s(9) == 0
    await stream.channel.publish(b"{}")
    assert stream.silent_s(9) == 0
    await stream.close(end=False)


async def test_a_token_that_ended_on_a_quiet_stream_is_renewed_by_its_proof(
    stream: OpenStream, client: FakePubSub, tokens: Tokens
):
    stream.start(Open(), 12.0, resumed=False)
    await client.until(lambda: client.polls)
    client.answers.append(TOKEN_REFUSED)
    step(stream, 4)
    await client.until(lambda: stream.silent_s(9) == 0)
    assert "renew" in tokens.asked
    await stream.close(end=False)


# -- the end ------------------------------------------------------------------------------------------------


async def test_closing_ends_the_inbound_side(stream: OpenStream, client: FakePubSub):
    stream.start(None, 12.0, resumed=False)
    reading = asyncio.create_task(take(stream, 1))
    await client.until(lambda: client.polls)
    await stream.close(end=False)
    with pytest.raises(AssertionError, match="ended after"):
        await asyncio.wait_for(reading, 10)


async def test_the_end_is_published_when_the_source_is_empty(stream: OpenStream, client: FakePubSub):
    stream.start(Closed(), 12.0, resumed=False)
    await stream.close(end=True)
    (published,) = [json.loads(body) for _, body in client.published]
    assert (published["type"], published["seq"]) == ("stream_end", 8)


async def test_without_an_end_nothing_is_published(stream: OpenStream, client: FakePubSub):
    stream.start(Closed(), 12.0, resumed=False)
    await client.until(lambda: client.polls)
    await stream.close(end=False)
    assert client.published == []


async def test_closing_does_not_wait_long_for_what_cannot_be_sent(
    stream: OpenStream, client: FakePubSub, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "END_LIMIT_S", 0.05)
    stream.start(Open(), 12.0, resumed=False)
    await client.until(lambda: client.polls)
    await asyncio.wait_for(stream.close(end=True), 10)
    assert client.published == []


# -- shared -------------------------------------------------------------------------------------------------


async def test_a_shared_stream_is_opened_once_and_closed_by_the_last_task(
    client: FakePubSub, background: BackgroundTasks
):
    streams = SharedStreams()
    first, second = Tokens(), Tokens()
    stream = opened(client, first, background, SHARED)
    stream.start(Open(), 12.0, resumed=False)
    await asyncio.sleep(0)
    starts: list[str] = []

    def start(token: str) -> OpenStream:
        starts.append(token)
        return stream

    one, two = await asyncio.gather(
        streams.attach(SHARED, "t1", first, start, announced=False),  # type: ignore[arg-type]
        streams.attach(SHARED, "t2", second, start, announced=False),  # type: ignore[arg-type]
    )
    assert (starts, first.asked, second.asked) == (["token"], ["first"], ["activate"])
    assert repr(streams) == "<SharedStreams {'telemetry': 2}>"

    await one.close(end=True)
    await stream.channel.renew_token()
    assert second.asked == ["activate", "renew"], "the task that is left renews the token"
    await two.close(end=True)
    await two.close(end=True)
    assert repr(streams) == "<SharedStreams {}>"
    assert client.published == [], "other instances may go on writing"


async def test_a_task_of_an_earlier_process_attaches_without_an_announcement(
    client: FakePubSub, background: BackgroundTasks
):
    streams, tokens, other = SharedStreams(), Tokens(), Tokens()
    stream = opened(client, tokens, background, SHARED)
    await streams.attach(SHARED, "t1", tokens, lambda token: stream, announced=True)  # type: ignore[arg-type]
    await streams.attach(SHARED, "t2", other, lambda token: stream, announced=True)  # type: ignore[arg-type]
    assert (tokens.asked, other.asked) == (["announced"], [])
