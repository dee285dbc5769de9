"""TLS in front of a port that has none, in a thread: the far end of a daemon that joins as in the field."""

import asyncio
import ssl
import threading
from types import TracebackType
from typing import Self

PIECE_BYTES = 65_536


class TlsTunnel:
    """`with TlsTunnel(context, port) as tunnel:` passes on what comes to `tunnel.port`, both ways."""

    def __init__(self, context: ssl.SSLContext, plain_port: int) -> None:
        self._context = context
        self._plain_port = plain_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        started = self._loop.create_task(asyncio.start_server(self._pass, "127.0.0.1", 0, ssl=self._context))
        self._server = self._loop.run_until_complete(started)
        self.port = self._server.sockets[0].getsockname()[1]
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        self._loop.run_forever()
        self._server.close()
        if tasks := asyncio.all_tasks(self._loop):
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.wait(tasks))
        self._loop.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            plain_reader, plain_writer = await asyncio.open_connection("127.0.0.1", self._plain_port)
        except OSError:
            writer.transport.abort()
            return
        ways = [
            asyncio.ensure_future(_copy(reader, plain_writer)),
            asyncio.ensure_future(_copy(plain_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            writer.transport.abort()
            plain_writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(PIECE_BYTES):
            writer.write(data)
            await writer.drain()
    except OSError:
        return  # one end has gone, which the other is told
