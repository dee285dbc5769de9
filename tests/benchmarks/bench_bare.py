"""The floor: what a bare event loop takes that puts the same bytes on the same wire, and no more.

No disk, no recovery, no limits, no rights, no second session: `asyncio` and `aiohttp`, one request under way
at a time. The official runtime opens the stream and hands it over (as an "external" one); `bench_provider`
starts this program with the stream in a JSON object, and waits until it says that it is ready:

    python tests/benchmarks/bench_bare.py '{"op": "edges", "channel": …, "token": …}'
"""

import asyncio
import json
import os
import sys
import time
from collections import deque
from typing import Any
from urllib.parse import urlencode

UUID = "bare"
# Below the network's limit of a message, with its head.
MESSAGE_BYTES = 15_000
CHUNK_BYTES = 4096


class Bare:
    """One stream: its events out, its commands in."""

    def __init__(self, stream: dict[str, Any], http: Any) -> None:
        self._stream = stream
        self._http = http
        self._waiting: deque[bytes] = deque()
        self._more = asyncio.Event()
        self._seq = 0

    def say(self, event: dict[str, Any]) -> None:
        self._waiting.append(json.dumps(event, separators=(",", ":")).encode())
        self._more.set()

    def reading(self, device: str, values: dict[str, Any]) -> None:
        self._seq += 1
        at_ms = time.time_ns() // 1_000_000
        self.say(
            {
                "kind": "reading",
                "at": at_ms,
                "seq": self._seq,
                "device": device,
                "boot": "0a1b2c3d",
                "values": values,
            }
        )

    def _address(self, path: str, **query: str) -> Any:
        from yarl import URL

        words = urlencode({"auth": self._stream["token"], "uuid": UUID, **query})
        return URL(f"http://{self._stream['origin']}{path}?{words}", encoded=True)

    async def publish(self) -> None:
        """All that waits, one message after the other."""
        publish_key, subscribe_key = self._stream["keys"]
        meta = json.dumps({"sender": UUID, "protocolVersion": self._stream["version"]})
        path = f"/publish/{publish_key}/{subscribe_key}/0/{self._stream['channel']}/0"
        address = self._address(path, meta=meta, store="0")
        number = 0
        while True:
            await self._more.wait()
            self._more.clear()
            while self._waiting:
                number += 1
                body = self._message(number)
                async with self._http.post(address, data=body) as answer:
                    answer.raise_for_status()
                    await answer.read()

    def _message(self, number: int) -> bytes:
        items, size = [], 0
        while self._waiting and size < MESSAGE_BYTES - len(self._waiting[0]):
            items.append(self._waiting.popleft())
            size += len(items[-1]) + 1
        head = {
            "type": "stream_events",
            "protocolVersion": self._stream["version"],
            "streamId": self._stream["stream_id"],
            "seq": number,
            "ts": time.time_ns() // 1_000_000,
            "encoding": "utf8",
        }
        return json.dumps(head)[:-1].encode() + b',"events":[' + b",".join(items) + b"]}"

    async def obey(self, line: Any) -> None:
        """Set an output as each command says, and acknowledge it."""
        path = f"/v2/subscribe/{self._stream['keys'][1]}/{self._stream['channel']}/0"
        cursor = "0"
        while True:
            address = self._address(path, tt=cursor, **{"filter-expr": f"meta.sender != '{UUID}'"})
            async with self._http.get(address) as answer:
                batch = await answer.json(content_type=None)
            if cursor == "0":
                ready()
            cursor = batch["t"]["t"]
            for message in batch["m"]:
                for command in message["d"].get("events", ()):
                    line.write(command["values"]["on"])
                    self.say({"kind": "ack", "id": command["id"], "state": "done"})


def ready() -> None:
    print("ready", flush=True)


def read_lines(port: str, bare: Bare) -> None:
    """Each line `n,flow` of a serial port becomes an event."""
    fd = os.open(port, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
    rest = b""

    def readable() -> None:
        nonlocal rest
        *whole, rest = (rest + os.read(fd, CHUNK_BYTES)).split(b"\n")
        for line in whole:
            n, _, flow = line.decode().partition(",")
            bare.reading("meter", {"n": int(n), "flow": float(flow)})

    asyncio.get_running_loop().add_reader(fd, readable)


def watch(line: Any, bare: Bare) -> None:
    """Each edge of an input of the simulated board becomes an event."""

    def readable() -> None:
        for edge in line.drain():
            bare.reading("door", {"active": edge.active})

    bare.reading("door", {"active": line.read()})
    asyncio.get_running_loop().add_reader(line.fileno(), readable)


async def main(stream: dict[str, Any]) -> None:
    import aiohttp

    from device_agent.testing.board.handles import SimulatedGpio

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=400)) as http:
        bare, work = Bare(stream, http), []
        if stream["op"] == "lines":
            read_lines(stream["port"], bare)
            ready()
        else:
            bus = SimulatedGpio("pins", stream["board"], UUID)
            bus.open()
            if stream["op"] == "edges":
                watch(bus.input(stream["line"]), bare)
                ready()
            else:
                work.append(bare.obey(bus.output(stream["line"], active=False)))
        await asyncio.gather(bare.publish(), *work)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
