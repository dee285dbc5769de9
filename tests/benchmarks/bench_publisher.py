"""What the publisher alone costs: CPU seconds for a thousand messages of fifty events.

    python tests/benchmarks/bench_publisher.py [--json FILE] [--rounds N] [--smoke]

From events that are made already to the socket: the writer of a stream, its channel, the messaging library's
request and the HTTP pool, as the daemon has them, towards a server in another process that takes everything.
No sensor, no outbox, no disk, no TLS.
"""

import asyncio
import subprocess
import sys
import time
from typing import Any

from bench_measure import machine, median, note, parser, save, table

from device_agent.clock import SystemClock
from device_agent.messages import events
from device_agent.network import OutgoingMessage, StreamSpec
from device_agent.network.blocks.http import Http
from device_agent.network.blocks.pubsub import KeySet, PubSubClient
from device_agent.network.blocks.stream_channel import StreamChannel
from device_agent.network.blocks.writer import PublishPace, StreamWriter
from device_agent.network.connectivity import Connectivity
from device_agent.records import Reading

MESSAGES, EVENTS = 1000, 50
SPEC = StreamSpec("readings", "s1", "outbound", "events", "dedicated")

SERVER = """
import asyncio, time
HEAD = b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: %d\\r\\n\\r\\n"
async def serve(reader, writer):
    while head := await reader.readline():
        length = 0
        while (head := await reader.readline()) != b"\\r\\n":
            if head.lower().startswith(b"content-length:"):
                length = int(head[15:])
        await reader.readexactly(length)
        body = b'[1,"Sent","%d"]' % (time.time_ns() // 100)
        writer.write(HEAD % len(body) + body)
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


class Source:
    """A `MessageSource` of messages that are made already."""

    pending_bytes = 0

    def __init__(self, messages: int) -> None:
        self.next_number = 1
        self._last = messages
        drafts = [
            events.reading(Reading("meter", n, {"n": n, "flow": 1.5}), "0a1b2c3d") for n in range(EVENTS)
        ]
        self._items = tuple(draft.numbered(100_000 + n) for n, draft in enumerate(drafts))

    @property
    def closed(self) -> bool:
        return self.next_number > self._last

    async def until_ready(self) -> None:
        pass

    def next_message(self, limit_bytes: int) -> OutgoingMessage | None:
        return (
            None
            if self.closed
            else OutgoingMessage(self.next_number, self._items, time.time_ns() // 1_000_000)
        )

    def ack(self, message: OutgoingMessage) -> None:
        self.next_number += 1


class Tokens:
    """No token ends here."""

    async def renew(self, spec: StreamSpec) -> str:
        raise AssertionError


async def published_s(origin: str, messages: int) -> float:
    """The CPU seconds of this process for so many."""
    clock = SystemClock()
    connectivity = Connectivity(clock)
    http = Http(connectivity, origin=origin)
    client = PubSubClient(http, KeySet("pub", "sub"), uuid="AG-1", token="t", origin=origin, tls=False)
    channel = StreamChannel(SPEC, "ours", client, Tokens(), connectivity)  # type: ignore[arg-type]
    try:
        await StreamWriter(channel, Source(50), PublishPace(0, clock), connectivity, clock).run()
        begun_s = time.process_time()
        await StreamWriter(channel, Source(messages), PublishPace(0, clock), connectivity, clock).run()
        return time.process_time() - begun_s
    finally:
        await http.close()


def main(words: list[str] | None = None) -> int:
    given = parser(__doc__).parse_args(words)
    messages, rounds = (50, 1) if given.smoke else (MESSAGES, given.rounds or 5)
    began = machine()
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        try:
            origin = f"127.0.0.1:{int(server.stdout.readline())}"
            taken = []
            for turn in range(rounds):
                taken.append(asyncio.run(published_s(origin, messages)) / messages * 1000)
                note(f"round {turn + 1}: {taken[-1]:.2f} CPU s per 1000 messages")
        finally:
            server.kill()
    entry: dict[str, Any] = {"median": median(taken), "least": min(taken), "most": max(taken)}
    table(
        f"CPU seconds of the publisher for 1000 messages of {EVENTS} events",
        list(entry),
        [list(entry.values())],
    )
    save(given.json, began, {"publisher": [entry]})
    return 0


if __name__ == "__main__":
    sys.exit(main())
