"""The handler of the official provider runtime in these tests; what it does is said by the request part."""

from __future__ import annotations

import base64
import json
from typing import Any


def handler(task: Any, ctx: Any) -> dict[str, Any] | None:
    request = json.loads(next(p.text for p in task.request_parts if p.part_id == "request"))
    return getattr(Operations, request["op"])(request, task, ctx)


def artifact(value: Any) -> dict[str, Any]:
    return {"artifacts": [{"data": json.dumps(value), "mimeType": "application/json", "outputId": "result"}]}


class Operations:
    @staticmethod
    def echo(request: dict[str, Any], task: Any, ctx: Any) -> dict[str, Any]:
        return artifact({"echo": request["text"]})

    @staticmethod
    def large(request: dict[str, Any], task: Any, ctx: Any) -> dict[str, Any]:
        data = bytes(i % 251 for i in range(request["size"]))
        return {
            "artifacts": [{"data": data, "mimeType": "application/octet-stream", "fileName": "large.bin"}]
        }

    @staticmethod
    def file(request: dict[str, Any], task: Any, ctx: Any) -> dict[str, Any]:
        part = next(p for p in task.request_parts if p.part_id == "file")
        data = ctx.download_input_artifact(part)
        return artifact({"size": len(data), "sum": sum(data)})

    @staticmethod
    def count(request: dict[str, Any], task: Any, ctx: Any) -> dict[str, Any]:
        """Some events on the stream that the request names, then done."""
        stream = ctx.create_stream(declared_stream=request["stream"], subscribe_grace_ms=0)
        for n in range(request["events"]):
            stream.write({"n": n, "pad": "x" * request.get("pad", 0)})
        stream.end()
        return artifact({"written": request["events"]})

    @staticmethod
    def pipe(request: dict[str, Any], task: Any, ctx: Any) -> None:
        """Events until cancelled."""
        stream = ctx.create_stream(declared_stream=request["stream"], max_latency_ms=20, subscribe_grace_ms=0)
        n = 0
        while not ctx.cancel_event.wait(0.02):
            stream.write({"n": n})
            n += 1

    @staticmethod
    def attach(request: dict[str, Any], task: Any, ctx: Any) -> None:
        """Attach to a shared stream; the first task writes for all."""
        stream = ctx.create_stream(declared_stream=request["stream"], max_latency_ms=20, subscribe_grace_ms=0)
        n = 0
        while not ctx.cancel_event.wait(0.02):
            if request["writes"]:
                stream.write({"n": n})
                n += 1

    @staticmethod
    def answer(request: dict[str, Any], task: Any, ctx: Any) -> None:
        """Answer every event of a bidirectional stream until one says stop."""
        stream = ctx.create_stream(declared_stream=request["stream"], max_latency_ms=20, subscribe_grace_ms=0)
        for event in stream.events():
            stream.write({"got": event})
            if event.get("stop"):
                break
        stream.end()
        ctx.cancel_event.wait(10)

    @staticmethod
    def listen(request: dict[str, Any], task: Any, ctx: Any) -> None:
        """Report what came on an inbound stream of bytes."""
        stream = ctx.create_stream(declared_stream=request["stream"], subscribe_grace_ms=0)
        data = b"".join(stream.bytes())
        ctx.publish_artifact(base64.b64encode(data), mime_type="text/plain", file_name="heard.txt")
        ctx.cancel_event.wait(10)

    @staticmethod
    def bytes(request: dict[str, Any], task: Any, ctx: Any) -> None:
        """A stream of bytes."""
        stream = ctx.create_stream(declared_stream=request["stream"], subscribe_grace_ms=0)
        for n in range(request["chunks"]):
            stream.write(bytes([n % 256]) * 1000)
        stream.end()
        ctx.cancel_event.wait(10)

    @staticmethod
    def wait(request: dict[str, Any], task: Any, ctx: Any) -> None:
        """Nothing, until cancelled."""
        ctx.cancel_event.wait(10)
