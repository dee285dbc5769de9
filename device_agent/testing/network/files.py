"""Files: upload sessions and the bytes they brought (protocol section 12)."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Upload:
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
        self.uploads: OrderedDict[str, Upload] = OrderedDict()
        self.files: OrderedDict[str, StoredFile] = OrderedDict()

    def request(self, upload: Upload) -> None:
        """Keep a requested upload; the oldest go when there are many."""
        self.uploads[upload.upload_id] = upload
        if len(self.uploads) > 10_000:
            self.uploads.popitem(last=False)

    def received(self, upload: Upload, data: bytes) -> None:
        """The bytes of an upload have come; unconfirmed ones are dropped when they are too many together."""
        upload.data = data
        held = [u for u in self.uploads.values() if u.data]
        excess = sum(len(u.data or b"") for u in held) - self._max_bytes
        for other in held:
            if excess <= 0 or other is upload:
                break
            excess -= len(other.data or b"")
            other.data = None

    def session(self, session_id: str) -> list[Upload]:
        """The confirmed uploads of a session, in order."""
        return [u for u in self.uploads.values() if u.session_id == session_id and u.confirmed]

    def store(self, upload: Upload, channel: str) -> dict[str, Any]:
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
