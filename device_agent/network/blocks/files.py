"""Results too large for an event: the presigned upload (protocol section 12), repeated to its end."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from device_agent.errors import NetworkError, ProtocolFault, Refused
from device_agent.network.blocks.http import Http
from device_agent.network.blocks.join import Joiner
from device_agent.network.link import Backoff

INLINE_MAX_BYTES = 16_384
UPLOAD_LIMIT_S = 120.0
# An upload is started again as a whole this often when the service refuses it; outages do not count.
REFUSALS_MAX = 8


@dataclass(frozen=True, slots=True)
class Upload:
    """One file for a task's caller."""

    task_id: str
    data: bytes = field(repr=False)
    mime_type: str
    output_id: str
    file_name: str = ""

    @property
    def name(self) -> str:
        return self.file_name or f"{self.task_id}-artifact"


class Uploads:
    """Sends files for tasks. The backend announces them to the caller; we must not."""

    def __init__(self, http: Http, joiner: Joiner) -> None:
        self._http = http
        self._joiner = joiner

    async def upload(self, file: Upload, before: Callable[[], Awaitable[None]] | None = None) -> None:
        """Returns when the backend confirmed. Raises Refused after many refusals.

        `before` is called once the service has the bytes for the first time, and before the caller is told.
        """
        backoff = Backoff(self._http.link)
        refusals = 0
        while True:
            try:
                upload_id = await self._send(file)
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

    async def _send(self, file: Upload) -> str:
        grant = await self._call(
            "/api/v1/files/request-upload",
            {
                "role": "provider-output",
                "fileName": file.name,
                "fileSize": len(file.data),
                "mimeType": file.mime_type,
                "taskId": file.task_id,
                "outputId": file.output_id,
            },
        )
        url, fields, upload_id = grant.get("uploadUrl"), grant.get("formFields"), grant.get("uploadId")
        if not isinstance(url, str) or not isinstance(fields, list) or not isinstance(upload_id, str):
            raise ProtocolFault("request-upload: the answer lacks uploadUrl, formFields or uploadId")
        await self._post_form(url, fields, file)
        return upload_id

    async def _call(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        reply = await self._joiner.call(path, body)
        if reply.get("error"):
            raise Refused(f"{path}: {reply['error']}", 200)
        return reply

    async def _post_form(self, url: str, fields: list[Any], file: Upload) -> None:
        import aiohttp

        form = aiohttp.FormData()
        for item in fields:
            form.add_field(str(item["key"]), str(item["value"]))
        form.add_field("file", file.data, filename=file.name, content_type=file.mime_type)
        async with (
            self._http.exchange("file upload", UPLOAD_LIMIT_S),
            self._http.session().post(url, data=form) as response,
        ):
            await asyncio.wait_for(response.read(), UPLOAD_LIMIT_S)
        self._http.link.answered()
        if response.status not in (200, 201, 204):
            raise Refused(f"file upload: HTTP {response.status}", response.status)
