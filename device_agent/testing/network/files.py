"""Files: upload sessions, the end points of the backend, and the storage they point at (docs/protocol.md)."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from aiohttp import BodyPartReader, web

from device_agent.testing.network.accounts import Requester
from device_agent.testing.network.http import Call, HttpError, backend_error, reply

if TYPE_CHECKING:
    from device_agent.testing.network.backend import Backend


@dataclass(slots=True)
class PendingUpload:
    """One requested upload. ``data`` is there once the presigned POST has come."""

    upload_id: str
    role: str
    file_name: str
    file_size: int
    mime_type: str
    org_id: str
    agent: str
    task_id: str = ""
    part_id: str = ""
    output_id: str = ""
    session_id: str = ""
    data: bytes | None = None
    confirmed: bool = False
    artifact: dict[str, Any] | None = None
    fields: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class StoredFile:
    """A file that can be downloaded."""

    file_id: str
    name: str
    channel: str
    mime_type: str
    data: bytes


class FileStore:
    """Uploads and files, bounded by their bytes together."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self.uploads: OrderedDict[str, PendingUpload] = OrderedDict()
        self.files: OrderedDict[str, StoredFile] = OrderedDict()

    def request(self, upload: PendingUpload) -> None:
        """Keep a requested upload; the oldest go when there are many."""
        self.uploads[upload.upload_id] = upload
        if len(self.uploads) > 10_000:
            self.uploads.popitem(last=False)

    def received(self, upload: PendingUpload, data: bytes) -> None:
        """The bytes of an upload have come; unconfirmed ones are dropped when they are too many together."""
        upload.data = data
        held = [u for u in self.uploads.values() if u.data]
        excess = sum(len(u.data or b"") for u in held) - self._max_bytes
        for other in held:
            if excess <= 0 or other is upload:
                break
            excess -= len(other.data or b"")
            other.data = None

    def session(self, session_id: str) -> list[PendingUpload]:
        """The confirmed uploads of a session, in order."""
        return [u for u in self.uploads.values() if u.session_id == session_id and u.confirmed]

    def store(self, upload: PendingUpload, channel: str) -> dict[str, Any]:
        """Make an upload's bytes a file on a channel; its artifactRef."""
        data = upload.data or b""
        found = StoredFile(secrets.token_hex(12), upload.file_name, channel, upload.mime_type, data)
        self.files[found.file_id] = found
        self._bytes += len(data)
        upload.data = None
        while self._bytes > self._max_bytes and len(self.files) > 1:
            self._bytes -= len(self.files.popitem(last=False)[1].data)
        upload.artifact = {
            "kind": "file",
            "mimeType": upload.mime_type,
            "size": len(data),
            "channel": channel,
            "fileId": found.file_id,
            "fileName": upload.file_name,
        }
        return upload.artifact


_CHUNK_BYTES = 256 * 1024


class FilesApi:
    """request-upload, the presigned POST, confirm-upload, and the storage's GET."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._settings, self._accounts, self._store = backend.settings, backend.accounts, backend.files

    async def request_upload(self, call: Call) -> web.Response:
        """Step 1."""
        body = await call.json()
        identity = self._accounts.required(call.bearer)
        size = body.get("fileSize")
        if not isinstance(size, int) or not 0 <= size <= self._settings.max_file_bytes:
            raise backend_error(400, "INVALID_REQUEST", f"fileSize {size!r} is not possible.")
        upload = PendingUpload(
            upload_id=f"upl_{secrets.token_hex(10)}",
            role=str(body.get("role")),
            file_name=str(body.get("fileName") or "file"),
            file_size=size,
            mime_type=str(body.get("mimeType") or "application/octet-stream"),
            org_id=identity.org_id,
            agent="",
            part_id=str(body.get("partId") or ""),
            output_id=str(body.get("outputId") or ""),
        )
        answer: dict[str, Any] = {"uploadId": upload.upload_id}
        if upload.role == "provider-output":
            self._provider_output(upload, body, identity)
        elif upload.role == "consumer-input":
            answer["uploadSessionId"] = self._consumer_input(upload, body)
        else:
            raise backend_error(400, "INVALID_REQUEST", "role must be provider-output or consumer-input.")
        upload.fields = {"key": f"uploads/{upload.upload_id}", "policy": secrets.token_hex(16)}
        self._store.request(upload)
        answer["uploadUrl"] = f"{call.base}/_storage/{upload.upload_id}"
        answer["formFields"] = [{"key": k, "value": v} for k, v in upload.fields.items()]
        return reply(answer)

    def _provider_output(self, upload: PendingUpload, body: dict[str, Any], identity: Requester) -> None:
        task = self._backend.tasks.get(str(body.get("taskId")))
        if task is None or task.agent.owner_org != identity.org_id:
            raise backend_error(404, "TASK_NOT_FOUND", "There is no such task of this agent.")
        upload.task_id, upload.agent = task.task_id, task.agent.name

    def _consumer_input(self, upload: PendingUpload, body: dict[str, Any]) -> str:
        if body.get("uploadSessionId"):
            upload.session_id = str(body["uploadSessionId"])
            first = next((u for u in self._store.uploads.values() if u.session_id == upload.session_id), None)
            if first is None or first.org_id != upload.org_id:
                raise backend_error(404, "UPLOAD_SESSION_NOT_FOUND", "There is no such upload session.")
            upload.agent = first.agent
        else:
            upload.session_id = f"ups_{secrets.token_hex(10)}"
            upload.agent = str(body.get("agentName") or "")
        agent = self._backend.registry.find(upload.agent)
        if agent is None or not upload.part_id:
            raise backend_error(400, "INVALID_REQUEST", "agentName and partId are needed.")
        for declared in (agent.card or {}).get("io", {}).get("inputs", []):
            limit = declared.get("maxSizeBytes")
            if declared.get("id") == upload.part_id and isinstance(limit, int) and upload.file_size > limit:
                raise backend_error(413, "FILE_TOO_LARGE", f"Input {upload.part_id} takes {limit} bytes.")
        return upload.session_id

    async def storage(self, call: Call) -> web.StreamResponse:
        """``/_storage/{id}``: POST takes an upload (step 2), GET gives a file back."""
        if call.method == "GET":
            found = self._store.files.get(call.segments[1])
            if found is None:
                raise HttpError(404, {"error": "NoSuchKey"})
            return web.Response(body=found.data, headers={"Content-Type": found.mime_type})
        upload = self._store.uploads.get(call.segments[1])
        if upload is None or upload.confirmed:
            raise HttpError(403, {"error": "AccessDenied"})
        fields, data = await _form(call.request, upload.file_size)
        if fields != upload.fields:
            raise HttpError(403, {"error": "AccessDenied: the form fields are not those that were given"})
        if data is None or len(data) != upload.file_size:
            raise HttpError(400, {"error": "EntityTooLarge: the file has not the size that was announced"})
        self._store.received(upload, data)
        return web.Response(status=204)

    async def confirm_upload(self, call: Call) -> web.Response:
        """Step 3; for provider output the backend publishes the artifact event."""
        body = await call.json()
        identity = self._accounts.required(call.bearer)
        upload = self._store.uploads.get(str(body.get("uploadId")))
        if upload is None or upload.org_id != identity.org_id:
            raise backend_error(404, "UPLOAD_NOT_FOUND", "There is no such upload.")
        if upload.data is None and not upload.confirmed:
            raise backend_error(409, "UPLOAD_INCOMPLETE", "The file has not arrived.")
        answer: dict[str, Any] = {"uploadId": upload.upload_id}
        if upload.role == "provider-output":
            answer["artifactRef"] = upload.artifact or self._publish(upload)
        upload.confirmed = True
        return reply(answer)

    def _publish(self, upload: PendingUpload) -> dict[str, Any]:
        task = self._backend.tasks.get(upload.task_id)
        if task is None:
            raise backend_error(404, "TASK_NOT_FOUND", "The task is gone.")
        artifact = self._store.store(upload, task.channel)
        event: dict[str, Any] = {"type": "artifact", "taskId": task.task_id, "artifactRef": artifact}
        if upload.output_id:
            event["outputId"] = upload.output_id
        self._backend.wire.send_event(task.environment, task.channel, task.agent.name, event)
        return artifact

    def location(self, call: Call, file_id: str, channel: str, name: str) -> str | None:
        """Where a file of a channel can be fetched, or ``None``."""
        found = self._store.files.get(file_id)
        if found is None or found.channel != channel or found.name != name:
            return None
        return f"{call.base}/_storage/{file_id}?name={quote(name, safe='')}"


async def _form(request: web.BaseRequest, limit: int) -> tuple[dict[str, str], bytes | None]:
    """The form's fields and its last part, the file; a field after the file is an error as at the storage."""
    fields: dict[str, str] = {}
    data: bytearray | None = None
    async for part in await request.multipart():
        if not isinstance(part, BodyPartReader) or data is not None:
            raise HttpError(400, {"error": "MalformedPOSTRequest"})
        if part.name != "file":
            fields[part.name or ""] = await part.text()
            continue
        data = bytearray()
        while chunk := await part.read_chunk(_CHUNK_BYTES):
            data += chunk
            if len(data) > limit:
                raise HttpError(400, {"error": "EntityTooLarge"})
    return fields, None if data is None else bytes(data)
