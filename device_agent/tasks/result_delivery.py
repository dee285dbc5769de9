"""What a request gives back, delivered to the end: over outages, and over the death of this process (W13).

Files wait on the disk, and the Journal knows what of them the network has. A file whose delivery a crash cut
off between the network's answer and the Journal goes out twice; it is never lost.
"""

import asyncio
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import structlog

from device_agent.errors import Fault, NetworkError, Refused
from device_agent.messages.requests import RESULT_ID
from device_agent.network import TaskLink
from device_agent.store.journal.journal import Journal

log = structlog.get_logger("delivery")

# Files that fit into an event are not worth a write to the card.
WORTH_KEEPING_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class ResultFile:
    """One artifact besides the result: bytes, or a file of the task's folder."""

    output_id: str
    file_name: str
    mime_type: str
    data: bytes | Path
    size_bytes: int | None = None
    """Of a file that the Journal knows of: what it must be."""


@dataclass(slots=True)
class TaskResult:
    """The result and its files, in the order in which they go out."""

    result: dict[str, Any]
    files: list[ResultFile] = field(default_factory=list)
    said: bool = False
    """The network has the result."""
    sent: int = 0
    """So many of the files it has."""

    def to_journal(self) -> dict[str, Any]:
        files = [[f.file_name, f.mime_type, str(f.data), f.output_id, f.size_bytes] for f in self.files]
        return {"result": json.dumps(self.result), "files": files, "said": self.said, "sent": self.sent}

    @classmethod
    def from_journal(cls, kept: Mapping[str, Any]) -> "TaskResult":
        files = [
            ResultFile(output_id, name, mime, Path(path), *size)
            for name, mime, path, output_id, *size in kept["files"]
        ]
        return cls(json.loads(kept["result"]), files, kept["said"], kept["sent"])


class ResultDelivery:
    """The folder of files that come and go with requests, one folder for each task."""

    def __init__(self, folder: Path, journal: Journal) -> None:
        self._folder = folder
        self._journal = journal

    def folder(self, task_id: str) -> Path:
        """Where the files of a task lie while it works. Raises OSError."""
        path = self._path(task_id)
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def forget(self, task_id: str) -> None:
        """The task ended: its files go."""
        shutil.rmtree(self._path(task_id), ignore_errors=True)

    def keep_only(self, task_ids: Iterable[str]) -> None:
        """Remove what tasks of earlier processes left behind."""
        wanted = {self._path(task_id) for task_id in task_ids}
        for path in self._folder.glob("*"):
            if path not in wanted:
                shutil.rmtree(path, ignore_errors=True)

    def _path(self, task_id: str) -> Path:
        return self._folder / f"{zlib.crc32(task_id.encode()):08x}-{len(task_id)}"

    async def send(self, link: TaskLink, parcel: TaskResult, progress: Callable[[str, float], None]) -> None:
        """Deliver what has not been delivered. The result says `done` only once the network has the first
        file too. Raises NetworkError when something cannot be delivered after the result was."""
        task_id = link.start.task_id
        kept = await self._keep(task_id, parcel)

        async def say() -> None:
            if not parcel.said:
                await _say(link, parcel.result)
                parcel.said = True
                await note()

        async def note() -> None:
            if kept:
                self._journal.note_session(task_id, {"parcel": parcel.to_journal()})
                await self._journal.flushed()

        for file in parcel.files[parcel.sent :]:
            try:
                _must_be_whole(file)
                await link.artifact(
                    file.data,
                    file.mime_type,
                    output_id=file.output_id,
                    file_name=file.file_name,
                    before=say,
                    progress=progress,
                )
            except NetworkError as error:
                if parcel.said:
                    raise
                fault = Fault("internal", f"{file.file_name} could not be delivered: {error}")
                parcel.result |= {"state": "failed", "error": fault.members()}
                break
            parcel.sent += 1
            await note()
        await say()

    async def _keep(self, task_id: str, parcel: TaskResult) -> bool:
        """Whether the parcel outlives this process; bytes go to the disk for that."""
        try:
            if not any(_size_bytes(file) > WORTH_KEEPING_BYTES for file in parcel.files):
                return False
            for number, file in enumerate(parcel.files):
                if isinstance(file.data, bytes):
                    path = self.folder(task_id) / f"{number}"
                    await asyncio.to_thread(path.write_bytes, file.data)
                else:
                    path = file.data
                if file.size_bytes is None:
                    parcel.files[number] = replace(file, data=path, size_bytes=path.stat().st_size)
                await asyncio.to_thread(_sync, path)
            # On the disk before the Journal says that they are.
            for folder in (self.folder(task_id), self._folder):
                await asyncio.to_thread(_sync, folder)
        except OSError as error:
            # A full disk costs the memory of a crash, not the delivery.
            log.warning("parcel_not_kept", task=task_id, error=str(error))
            return False
        self._journal.note_session(task_id, {"parcel": parcel.to_journal()})
        await self._journal.flushed()
        return True


async def _say(link: TaskLink, result: Mapping[str, Any]) -> None:
    body = json.dumps(result, separators=(",", ":"), allow_nan=False).encode()
    await link.artifact(body, "application/json", output_id=RESULT_ID, file_name="result.json")


def _must_be_whole(file: ResultFile) -> None:
    """Raises Refused for a file that a power cut or a person has damaged since it was made."""
    try:
        size_bytes = _size_bytes(file)
    except OSError as error:
        raise Refused(f"the file is lost ({error.strerror}); ask again") from None
    if file.size_bytes not in (None, size_bytes):
        raise Refused(f"{size_bytes} of its {file.size_bytes} bytes are left; ask again")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _size_bytes(file: ResultFile) -> int:
    return len(file.data) if isinstance(file.data, bytes) else file.data.stat().st_size
