"""Upload end points of the backend, and the storage they point at (protocol section 12)."""

from __future__ import annotations

import secrets
from typing import Any
from urllib.parse import quote

from aiohttp import BodyPartReader, web

from device_agent.testing.network.accounts import Accounts, Identity
from device_agent.testing.network.backend import Backend
from device_agent.testing.network.calls import Call
from device_agent.testing.network.files import FileStore, Upload
from device_agent.testing.network.registry import Registry
from device_agent.testing.network.replies import Refused, backend_error, reply
from device_agent.testing.network.settings import Settings

_CHUNK_BYTES = 256 * 1024


class FilesApi:
    """request-upload, the presigned POST, confirm-upload, and the storage's GET."""

    def __init__(
        self,
        settings: Settings,
        accounts: Accounts,
        registry: Registry,
        backend: Backend,
        store: FileStore,
    ) -> None:
        self._settings = settings
        self._accounts = accounts
        self._registry = registry
        self._backend = backend
        self._store = store

    async def request_upload(self, call: Call) -> web.Response:
        """Step 1."""
        body = await call.json()
        identity = self._accounts.required(call.bearer)
        size = body.get("fileSize")
        if not isinstance(size, int) or not 0 <= size <= self._settings.max_file_bytes:
            raise backend_error(400, "INVALID_REQUEST", f"fileSize {size!r} is not possible.")
        upload = Upload(
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

    def _provider_output(self, upload: Upload, body: dict[str, Any], identity: Identity) -> None:
        task = self._backend.tasks.get(str(body.get("taskId")))
        if task is None or task.agent.owner_org != identity.org_id:
            raise backend_error(404, "TASK_NOT_FOUND", "There is no such task of this agent.")
        upload.task_id, upload.agent = task.task_id, task.agent.name

    def _consumer_input(self, upload: Upload, body: dict[str, Any]) -> str:
        if body.get("uploadSessionId"):
            upload.session_id = str(body["uploadSessionId"])
            first = next((u for u in self._store.uploads.values() if u.session_id == upload.session_id), None)
            if first is None or first.org_id != upload.org_id:
                raise backend_error(404, "UPLOAD_SESSION_NOT_FOUND", "There is no such upload session.")
            upload.agent = first.agent
        else:
            upload.session_id = f"ups_{secrets.token_hex(10)}"
            upload.agent = str(body.get("agentName") or "")
        agent = self._registry.find(upload.agent)
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
                raise Refused(404, {"error": "NoSuchKey"})
            return web.Response(body=found.data, headers={"Content-Type": found.mime_type})
        upload = self._store.uploads.get(call.segments[1])
        if upload is None or upload.confirmed:
            raise Refused(403, {"error": "AccessDenied"})
        fields, data = await _form(call.request, upload.file_size)
        if fields != upload.fields:
            raise Refused(403, {"error": "AccessDenied: the form fields are not those that were given"})
        if data is None or len(data) != upload.file_size:
            raise Refused(400, {"error": "EntityTooLarge: the file has not the size that was announced"})
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

    def _publish(self, upload: Upload) -> dict[str, Any]:
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
            raise Refused(400, {"error": "MalformedPOSTRequest"})
        if part.name != "file":
            fields[part.name or ""] = await part.text()
            continue
        data = bytearray()
        while chunk := await part.read_chunk(_CHUNK_BYTES):
            data += chunk
            if len(data) > limit:
                raise Refused(400, {"error": "EntityTooLarge"})
    return fields, None if data is None else bytes(data)
