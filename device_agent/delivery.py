"""What a request gives back, delivered to the end: over outages, and over the death of this process (W13).

Files wait on the disk, and the Journal knows what of them the network has. A file whose delivery a crash cut
off between the network's answer and the Journal goes out twice; it is never lost.
"""

import asyncio
import json
import shutil
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import structlog

from device_agent.card import RESULT_ID
from device_agent.errors import NetworkError
from device_agent.network import TaskLink
from device_agent.store.journal import Journal

log = structlog.get_logger("delivery")

# Files that fit into an event are not worth a write to the card.
WORTH_KEEPING_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class Piece:
    """One artifact besides the result: bytes, or a file of the task's folder."""

    output_id: str
    file_name: str
    mime_type: str
    data: bytes | Path


@dataclass(slots=True)
class Parcel:
    """The result and its files, in the order in which they go out."""

    result: dict[str, Any]
    files: list[Piece] = field(default_factory=list)
    said: bool = False
    """The network has the result."""
    sent: int = 0
    """So many of the files it has."""

    def to_journal(self) -> dict[str, Any]:
        files = [[f.file_name, f.mime_type, str(f.data), f.output_id] for f in self.files]
        return {"result": json.dumps(self.result), "files": files, "said": self.said, "sent": self.sent}

    @classmethod
    def from_journal(cls, kept: Mapping[str, Any]) -> "Parcel":
        files = [Piece(output_id, name, mime, Path(path)) for name, mime, path, output_id in kept["files"]]
        return cls(json.loads(kept["result"]), files, kept["said"], kept["sent"])


class Deliveries:
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

    async def send(self, link: TaskLink, parcel: Parcel, progress: Callable[[str, float], None]) -> None:
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
                fault = {"code": "internal", "message": f"{file.file_name} could not be delivered: {error}"}
                parcel.result |= {"state": "failed", "error": fault}
                break
            parcel.sent += 1
            await note()
        await say()

    async def _keep(self, task_id: str, parcel: Parcel) -> bool:
        """Whether the parcel outlives this process; bytes go to the disk for that."""
        if not any(_size_bytes(file) > WORTH_KEEPING_BYTES for file in parcel.files):
            return False
        try:
            for number, file in enumerate(parcel.files):
                if isinstance(file.data, bytes):
                    path = self.folder(task_id) / f"{number}"
                    await asyncio.to_thread(path.write_bytes, file.data)
                    parcel.files[number] = replace(file, data=path)
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


def _size_bytes(file: Piece) -> int:
    return len(file.data) if isinstance(file.data, bytes) else file.data.stat().st_size
