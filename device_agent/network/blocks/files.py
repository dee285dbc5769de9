"""Files too large for an event (docs/protocol.md): presigned upload of results, download of inputs.

Both are from and to the disk, and repeated until they succeed.
"""

import asyncio
import io
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import urljoin, urlsplit

from device_agent.errors import NetworkError, ProtocolFault, Refused, TokenRefused
from device_agent.network.blocks.http import Http, pieces, read_reply
from device_agent.network.blocks.joiner import Joiner
from device_agent.network.connectivity import NetworkBackoff
from device_agent.text.printable import printable

INLINE_MAX_BYTES = 16_384
TOO_LARGE = 413
"""The status of a Refused for a file that is too large."""
# One try of one transfer: so long, and longer for what is large on a slow line.
TRANSFER_LIMIT_S = 120.0
SLOWEST_UPLOAD_BYTES_PER_S = 1_000
SLOWEST_DOWNLOAD_BYTES_PER_S = 10_000
PROGRESS_S = 1.0
REDIRECTS = (301, 302, 303, 307, 308)
# Where the network keeps files, besides the host that was asked.
STORAGE = (".pndsn.com", ".pubnub.com", ".amazonaws.com")
Progress = Callable[[str, float], None]
"""Called with a sentence and the share that is done, 0 to 1."""
# An upload is started again as a whole this often when the network refuses it; outages do not count.
REFUSALS_MAX = 8


@dataclass(frozen=True, slots=True)
class Upload:
    """One file for a task's caller."""

    task_id: str
    data: bytes | Path = field(repr=False)
    mime_type: str
    output_id: str
    file_name: str = ""

    @property
    def name(self) -> str:
        return self.file_name or f"{self.task_id}-artifact"

    @property
    def size_bytes(self) -> int:
        return self.data.stat().st_size if isinstance(self.data, Path) else len(self.data)

    def open(self) -> IO[bytes]:
        return self.data.open("rb") if isinstance(self.data, Path) else io.BytesIO(self.data)


class Uploads:
    """Uploads the files of tasks. The backend announces them to the caller; the agent must not."""

    def __init__(self, http: Http, joiner: Joiner) -> None:
        self._http = http
        self._joiner = joiner

    async def upload(
        self,
        file: Upload,
        before: Callable[[], Awaitable[None]] | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Returns when the backend has confirmed. Raises Refused after many refusals.

        `before` is called once, when the network has the bytes and before it announces them to the caller.
        """
        backoff = NetworkBackoff(self._http.connectivity)
        refusals = 0
        while True:
            try:
                upload_id = await self._send(file, progress)
                if before is not None:
                    first, before = before, None
                    await first()
                await self._call("/api/v1/files/confirm-upload", {"uploadId": upload_id})
                return
            except NetworkError as error:
                refusals += isinstance(error, Refused)
                if refusals >= REFUSALS_MAX:
                    raise
                await backoff.wait(error)

    async def _send(self, file: Upload, progress: Progress | None) -> str:
        grant = await self._call(
            "/api/v1/files/request-upload",
            {
                "role": "provider-output",
                "fileName": file.name,
                "fileSize": file.size_bytes,
                "mimeType": file.mime_type,
                "taskId": file.task_id,
                "outputId": file.output_id,
            },
        )
        url, fields, upload_id = grant.get("uploadUrl"), grant.get("formFields"), grant.get("uploadId")
        if not isinstance(url, str) or not isinstance(fields, list) or not isinstance(upload_id, str):
            raise ProtocolFault("request-upload: the answer lacks uploadUrl, formFields or uploadId")
        sending = self._post_form(url, fields, file, progress)
        await self._http.connectivity.completed("file upload", sending)
        return upload_id

    async def _call(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        reply = await self._joiner.call(path, body)
        if reply.get("error"):
            raise Refused(f"{path}: {reply['error']}", 200)
        return reply

    async def _post_form(self, url: str, fields: list[Any], file: Upload, progress: Progress | None) -> None:
        import aiohttp

        form = aiohttp.FormData()
        for item in fields:
            form.add_field(str(item["key"]), str(item["value"]))
        try:
            body = file.open()
        except OSError as error:
            raise Refused(f"file upload: {error}") from None
        size_bytes = file.size_bytes
        limit_s = max(TRANSFER_LIMIT_S, size_bytes / SLOWEST_UPLOAD_BYTES_PER_S)
        form.add_field("file", body, filename=file.name, content_type=file.mime_type)
        with body, _reporting(body, f"uploading {file.name}", size_bytes, progress):
            async with (
                self._http.exchange("file upload", limit_s),
                self._http.session().post(url, data=form, allow_redirects=False) as response,
            ):
                await read_reply(response, "file upload")
        if response.status not in (200, 201, 204):
            raise Refused(f"file upload: HTTP {response.status}", response.status)
        self._http.connectivity.answered()


async def download(http: Http, addresses: Sequence[Callable[[], str]], to: Path, limit_bytes: int) -> None:
    """Write a file to `to`. `addresses`: its address with each token that may serve, tried in this order.

    An outage is waited out. Raises Refused after many refusals, and for a file larger than `limit_bytes`.
    """
    backoff = NetworkBackoff(http.connectivity)
    left = list(addresses)
    refusals = 0
    while True:
        try:
            fetching = _fetch(http, left[0](), to, limit_bytes)
            await http.connectivity.completed("file download", fetching)
            return
        except NetworkError as error:
            if isinstance(error, TokenRefused) and len(left) > 1:
                left.pop(0)
                continue
            refusals += isinstance(error, Refused)
            if refusals >= REFUSALS_MAX or getattr(error, "status", 0) == TOO_LARGE:
                raise
            await backoff.wait(error)


async def _fetch(http: Http, url: str, to: Path, limit_bytes: int, *, redirected: bool = False) -> None:
    what, size_bytes = "file download", 0
    async with (
        http.exchange(what, max(TRANSFER_LIMIT_S, limit_bytes / SLOWEST_DOWNLOAD_BYTES_PER_S)),
        http.session().get(url, allow_redirects=False) as response,
    ):
        if response.status in REDIRECTS and not redirected:
            there = urljoin(url, response.headers.get("Location", ""))
            if not is_ours(url, there):
                raise Refused(f"{what}: the network leads to {printable(there, 100)!r}, no host of its own")
            await _fetch(http, there, to, limit_bytes, redirected=True)
            return
        if response.status in (401, 403):
            raise TokenRefused(f"{what}: the task's token does not allow it", response.status)
        if response.status != 200:
            raise Refused(f"{what}: HTTP {response.status}", response.status)
        with to.open("wb") as file:
            async for chunk in pieces(response, what):
                size_bytes += len(chunk)
                if size_bytes > limit_bytes:
                    raise Refused(f"the file is larger than {limit_bytes} bytes", TOO_LARGE)
                # A slow SD card must not block the event loop.
                await asyncio.to_thread(file.write, chunk)
    http.connectivity.answered()


def is_ours(asked: str, there: str) -> bool:
    """Whether a redirect stays with the service: a file may go to a device, and the request to any host."""
    try:
        home, target = urlsplit(asked), urlsplit(there)
        host, same = target.hostname or "", target.hostname == home.hostname
    except ValueError:
        return False
    safe = target.scheme == "https" or target.scheme == home.scheme == "http"
    return safe and "@" not in target.netloc and (same or f".{host}".endswith(STORAGE))


@contextmanager
def _reporting(body: IO[bytes], what: str, size_bytes: int, progress: Progress | None) -> Iterator[None]:
    """While the HTTP library reads the file: reports the progress once a second."""
    if progress is None:
        yield
        return

    async def report() -> None:
        while True:
            await asyncio.sleep(PROGRESS_S)
            share = min(1.0, body.tell() / max(1, size_bytes))
            progress(f"{what}: {share:.0%} of {size_bytes / 1000:.0f} kB", share)

    reporting = asyncio.ensure_future(report())
    try:
        yield
    finally:
        reporting.cancel()
