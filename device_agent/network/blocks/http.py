"""The HTTP pool of the daemon, and the requests of the backend API (docs/protocol.md).

Exceptions of aiohttp become ours here.
"""

import asyncio
import json
import math
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from device_agent.errors import ProtocolFault, Refused, Revoked, TokenRefused, Unreachable
from device_agent.network.blocks.wire import PROTOCOL_VERSION
from device_agent.network.connectivity import Connectivity
from device_agent.text.printable import printable

if TYPE_CHECKING:
    import aiohttp

    from device_agent.network.blocks.tls import ClockContext

DEFAULT_ORIGIN = "ps.pndsn.com"
REQUEST_LIMIT_S = 30.0
CONNECT_LIMIT_S = 10.0
# Streams that listen at once: descriptors below 1024, which select(2) needs, are left for all else.
LISTENING_MAX = 512
# A reply larger than this is no reply of this API; a board must not read it into memory.
REPLY_MAX_BYTES = 4_000_000
PIECE_BYTES = 65_536
FATAL_CODES = frozenset({"API_KEY_INVALID", "AGENT_FORCED_OFFLINE"})


class Http:
    """One connection pool, opened on first use (aiohttp costs 10 MB and is not loaded before)."""

    def __init__(self, connectivity: Connectivity, proxy: str | None = None, origin: str = "") -> None:
        """`proxy`: as `Proxies` takes it. `origin`: the host of the messaging, which tells the time."""
        self.connectivity = connectivity
        self._proxy = proxy
        self._origin = origin or DEFAULT_ORIGIN
        self._tls: ClockContext | None = None
        self._session: aiohttp.ClientSession | None = None
        self.listening = asyncio.Semaphore(LISTENING_MAX)

    def session(self) -> "aiohttp.ClientSession":
        if self._session is None:
            from device_agent.network.blocks.http_library import aiohttp
            from device_agent.network.blocks.proxy import Proxies
            from device_agent.network.blocks.tls import ClockContext

            proxies = Proxies(self._proxy)
            self._tls = ClockContext.make(self.connectivity.clock)
            self._session = aiohttp.ClientSession(
                request_class=proxies.request_class() if proxies else aiohttp.ClientRequest,
                # Unpacked in `pieces`: one packet may become a thousand times as many bytes.
                auto_decompress=False,
                headers={"Accept-Encoding": "gzip"},
                # No limit for all together: a stop, an answer and the control channel wait for no stream.
                connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=60, ssl=self._tls),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_LIMIT_S),
            )
        return self._session

    async def know_time(self, url: str) -> None:
        """Learn the time, without which no certificate can be judged, before anything secret goes to `url`.

        How, and why that cannot be abused, is in `tls`. Raises Unreachable, ProtocolFault.
        """
        from device_agent.network.blocks.tls import ClockContext

        clock = self.connectivity.clock
        if clock.is_set() or not url.startswith("https://"):
            return
        session, hinting = self.session(), ClockContext.make(clock, hinting=True)
        assert self._tls is not None
        what = "asking for the time"
        async with (
            self.exchange(what, REQUEST_LIMIT_S),
            session.head(url, ssl=hinting, allow_redirects=False) as response,
        ):
            date = response.headers.get("Date")
        if not self._tls.take_hint(date, hinting.certificate):
            raise ProtocolFault(f"{what}: the host's Date {printable(date or '')!r} cannot be right")
        try:
            sent_s = clock.monotonic_s()
            where = f"https://{self._origin}/time/0"
            async with (
                self.exchange(what, REQUEST_LIMIT_S),
                session.get(where, allow_redirects=False) as response,
            ):
                answer = await read_reply(response, what)
            self.connectivity.time_sample(int(answer.strip(b"[] \n")) / 10_000, sent_s, clock.monotonic_s())
        except ValueError:
            raise ProtocolFault(f"{what}: {where} does not answer with a number") from None
        finally:
            self._tls.hint_ms = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    @asynccontextmanager
    async def exchange(self, what: str, limit_s: float, *, held: bool = False) -> AsyncIterator[None]:
        """Bounds one exchange and turns transport failures into Unreachable.

        `held`: the far end answers when there is something to say, so that silence is no loss.
        """
        import aiohttp

        try:
            async with asyncio.timeout(limit_s):
                yield
        except TimeoutError:
            why = f"{what}: no answer within {limit_s:g} s"
            if not held:
                self.connectivity.lost(why)
            raise Unreachable(why) from None
        except (aiohttp.ClientError, OSError) as error:
            why = f"{what}: {error or type(error).__name__}"
            self.connectivity.lost(why)
            raise Unreachable(why) from error


class Api:
    """The backend: JSON in, JSON out. `base_url` may change when the config document does."""

    def __init__(self, http: Http, base_url: str) -> None:
        self._http = http
        self.base_url = base_url.rstrip("/")
        self._affinity = 0.0

    async def request(
        self,
        method: str,
        path: str,
        *,
        bearer: str = "",
        body: Mapping[str, Any] | None = None,
        limit_s: float = REQUEST_LIMIT_S,
    ) -> dict[str, Any]:
        """One exchange. Raises Unreachable, Refused (TokenRefused: 401, 403; Revoked), ProtocolFault."""
        headers = {"Blocks-Protocol-Version": PROTOCOL_VERSION}
        if bearer:
            headers["Authorization"] = f"Bearer {bearer}"
        if self._affinity:
            headers["X-Write-Affinity"] = f"{self._affinity:.3f}"
        data = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(body).encode()
        what = f"{method} {path.partition('?')[0] or '/'}"
        url = self.base_url + path
        await self._http.know_time(url)
        async with (
            self._http.exchange(what, limit_s),
            self._http.session().request(
                method, url, headers=headers, data=data, allow_redirects=False
            ) as response,
        ):
            status = response.status
            text = await read_reply(response, what)
            self._note_affinity(response.headers.get("X-Write-Affinity"))
        reply = self._reply(what, status, text)
        self._http.connectivity.answered()
        return reply

    @staticmethod
    def _reply(what: str, status: int, text: bytes) -> dict[str, Any]:
        try:
            return parse_reply(what, status, text.strip() or b"{}")
        except Refused as refused:
            if refused.code in FATAL_CODES:
                raise Revoked(str(refused), status, refused.code) from None
            if status in (401, 403):
                raise TokenRefused(str(refused), status, refused.code) from None
            raise

    def _note_affinity(self, value: str | None) -> None:
        try:
            until = float(value or 0)
        except ValueError:
            return
        if math.isfinite(until):
            self._affinity = max(self._affinity, until)


async def pieces(response: "aiohttp.ClientResponse", what: str) -> AsyncIterator[bytes]:
    """The body, unpacked, in pieces of at most 64 kB, so that who reads it can stop in time.

    Raises ProtocolFault where it cannot be unpacked.
    """
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding == "identity":
        async for chunk in response.content.iter_chunked(PIECE_BYTES):
            yield chunk
        return
    if encoding != "gzip":
        raise ProtocolFault(f"{what}: the answer is packed as {encoding[:40]!a}, which was not asked for")
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        async for chunk in response.content.iter_chunked(PIECE_BYTES):
            while chunk and not unpacker.eof:
                yield unpacker.decompress(chunk, PIECE_BYTES)
                chunk = unpacker.unconsumed_tail
    except zlib.error as error:
        raise ProtocolFault(f"{what}: the answer cannot be unpacked ({error})") from None
    if not unpacker.eof:
        raise ProtocolFault(f"{what}: the packed answer ends too early")


async def read_reply(
    response: "aiohttp.ClientResponse", what: str, limit_bytes: int = REPLY_MAX_BYTES
) -> bytes:
    """The body. Raises ProtocolFault beyond `limit_bytes`."""
    parts: list[bytes] = []
    size_bytes = 0
    async for piece in pieces(response, what):
        parts.append(piece)
        size_bytes += len(piece)
        if size_bytes > limit_bytes:
            raise ProtocolFault(f"{what}: the answer is larger than {limit_bytes} bytes")
    return b"".join(parts)


def parse_reply(what: str, status: int, text: bytes) -> dict[str, Any]:
    """The JSON object of an answer. Raises Refused for a status that is no success, else ProtocolFault."""
    try:
        reply = json.loads(text)
    except (ValueError, RecursionError):
        reply = None
    if not 200 <= status < 300:
        code, message = error_of(reply)
        code = printable(code)
        raise Refused(f"{what}: HTTP {status} {message or code or 'without a reason'}", status, code)
    if not isinstance(reply, dict):
        raise ProtocolFault(f"{what}: the answer is not a JSON object")
    return reply


def error_of(reply: Any) -> tuple[str, str]:
    """`code` and human text of an error body, wherever the service put them; empty where there is none."""
    if not isinstance(reply, dict):
        return "", ""
    nested = reply.get("error") if isinstance(reply.get("error"), dict) else reply.get("data")
    places = [reply, nested] if isinstance(nested, dict) else [reply]
    code = next((p["code"] for p in places if isinstance(p.get("code"), str)), "")
    texts = (p.get(key) for p in places for key in ("message", "error"))
    message = next((t for t in texts if isinstance(t, str)), "")
    return code, printable(message).strip()
