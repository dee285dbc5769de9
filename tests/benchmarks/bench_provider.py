"""The handler of the official provider runtime: the same work as the daemon's, written as its guide shows.

The first input part says what to do: read lines from a serial port, watch a line of the simulated board, set
one when told to, or tell something now and then. Each event has the members that the daemon's have.
Or it opens the stream alone, and a bare loop does the work.
"""

import json
import os
import select
import subprocess
import sys
import threading
import time
from typing import Any

CHUNK_BYTES = 4096
STREAM = "readings"


def handler(task: Any, ctx: Any) -> None:
    request = json.loads(next(part.text for part in task.request_parts if part.part_id == "request"))
    options = request.get("options", {})
    if request["op"] == "bare":
        hand_over(request, ctx)
        return
    if request["op"] == "orders":
        orders(request, ctx.cancel_event, ctx.create_stream(declared_stream="control", **options))
        return
    stream = ctx.create_stream(declared_stream=STREAM, **options)
    seq = 0

    def tell(device: str, values: dict[str, Any]) -> None:
        nonlocal seq
        seq += 1
        at_ms = time.time_ns() // 1_000_000
        stream.write(
            {
                "kind": "reading",
                "at": at_ms,
                "seq": seq,
                "device": device,
                "boot": "0a1b2c3d",
                "values": values,
            }
        )

    {"lines": lines, "edges": edges, "ticks": ticks}[request["op"]](request, ctx.cancel_event, tell)


def lines(request: dict[str, Any], cancelled: Any, tell: Any) -> None:
    """Lines `n,flow` of a serial port."""
    fd = os.open(request["port"], os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
    rest = b""
    try:
        while not cancelled.is_set():
            if not select.select([fd], [], [], 0.1)[0]:
                continue
            *whole, rest = (rest + os.read(fd, CHUNK_BYTES)).split(b"\n")
            for line in whole:
                n, _, flow = line.decode().partition(",")
                tell("meter", {"n": int(n), "flow": float(flow)})
    finally:
        os.close(fd)


def edges(request: dict[str, Any], cancelled: Any, tell: Any) -> None:
    """Edges of one input of the simulated board."""
    from device_agent.testing.board.handles import SimulatedGpio

    bus = SimulatedGpio("pins", request["board"], "official")
    bus.open()
    line = bus.input(request["line"])
    try:
        tell("door", {"active": line.read()})
        while not cancelled.is_set():
            if select.select([line.fileno()], [], [], 0.1)[0]:
                for edge in line.drain():
                    tell("door", {"active": edge.active})
    finally:
        line.close()
        bus.close()


def ticks(request: dict[str, Any], cancelled: Any, tell: Any) -> None:
    """A reading every `every_s` seconds."""
    while not cancelled.wait(request["every_s"]):
        tell("climate", {"temperature": 21.37, "pressure": 1013.25, "humidity": 48.1})


def hand_over(request: dict[str, Any], ctx: Any) -> None:
    """Opens the stream for another program, and waits for the task's end."""
    from device_agent.testing.network.sdk import ORIGIN_VARIABLE
    from device_agent.testing.network.settings import KEY_SETS, PROTOCOL_VERSION

    name = "control" if request["what"] == "orders" else STREAM
    both_ways = {"direction": "bidirectional"} if name == "control" else {}
    stream = ctx.create_stream(declared_stream=name, format="events", external=True, **both_ways)
    given = {
        **request,
        "op": request["what"],
        "channel": stream.channel,
        "stream_id": stream.stream_id,
        "token": stream.token,
        "origin": os.environ[ORIGIN_VARIABLE],
        "keys": KEY_SETS["playground"],
        "version": PROTOCOL_VERSION,
    }
    command = [sys.executable, request["program"], json.dumps(given)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        stream.activate()
        ctx.cancel_event.wait()
        process.terminate()


def orders(request: dict[str, Any], cancelled: Any, stream: Any) -> None:
    """Sets one output of the simulated board, and says so."""
    from device_agent.testing.board.handles import SimulatedGpio

    # Else `events` goes on after the task, and holds the output that the next one needs.
    threading.Thread(target=lambda: (cancelled.wait(), stream.end()), daemon=True).start()
    bus = SimulatedGpio("pins", request["board"], "official")
    bus.open()
    line = bus.output(request["line"], active=False)
    try:
        for event in stream.events():
            line.write(event["values"]["on"])
            stream.write({"kind": "ack", "id": event["id"], "state": "done"})
    finally:
        line.close()
        bus.close()
