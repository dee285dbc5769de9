"""Delivers what a request came to: over outages, and over the death of this process.

Files wait on the disk, and the Journal knows which of them the network has. A file whose delivery a crash cut
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
from device_agent.store.files import sync_folder, write_atomically
from device_agent.store.journal.journal import Journal

log = structlog.get_logger("delivery")

# Files that fit into an event are not worth a write to the card.
WORTH_KEEPING_BYTES = 16_384
READ_BYTES = 65_536
# What the Journal calls a result.
JOURNAL_KEY = "parcel"


@dataclass(frozen=True, slots=True)
class ResultFile:
    """One artifact besides the result: bytes, or a file of the task's folder."""

    output_id: str
    file_name: str
    mime_type: str
    data: bytes | Path
    expected: tuple[int, ...] = ()
    """Size and CRC-32 of a file that the Journal knows of; another one is damaged."""

    @property
    def size_bytes(self) -> int:
        """Raises OSError where the file cannot be read."""
        return len(self.data) if isinstance(self.data, bytes) else self.data.stat().st_size


@dataclass(slots=True)
class TaskResult:
    """What a request came to, the files that go with it in their order, and how far both are delivered."""

    op: str
    state: str
    """As an ack's: "done", "rejected", "failed" or "unknown"."""
    content: Mapping[str, Any] = field(default_factory=dict)
    """What the op adds: readings, an ack, devices …"""
    error: Fault | None = None
    files: list[ResultFile] = field(default_factory=list)
    delivered: bool = False
    """The network has the result itself."""
    files_delivered: int = 0

    def members(self) -> dict[str, Any]:
        """The `result` artifact."""
        members = {"op": self.op, "state": self.state, **self.content}
        return members if self.error is None else {**members, "error": self.error.members()}

    def to_journal(self) -> dict[str, Any]:
        files = [
            [f.file_name, f.mime_type, str(f.data), f.output_id, *(f.expected or [None])] for f in self.files
        ]
        result = json.dumps(self.members())
        saved = {"result": result, "files": files, "said": self.delivered, "sent": self.files_delivered}
        return {JOURNAL_KEY: saved}

    @classmethod
    def from_journal(cls, task: Mapping[str, Any]) -> "TaskResult | None":
        """The result that a task of an earlier process came to; None if it came to none."""
        saved = task.get(JOURNAL_KEY)
        if saved is None:
            return None
        content = json.loads(saved["result"])
        op, state, error = content.pop("op", ""), content.pop("state"), content.pop("error", None)
        files = [
            ResultFile(output_id, name, mime, Path(path), tuple(expected) if expected != [None] else ())
            for name, mime, path, output_id, *expected in saved["files"]
        ]
        fault = None if error is None else Fault.from_members(error)
        return cls(op, state, content, fault, files, saved["said"], saved["sent"])


class ResultDelivery:
    """Sends results, and owns the folders of files that come and go with requests, one for each task."""

    def __init__(self, folder: Path, journal: Journal) -> None:
        self._folder = folder
        self._journal = journal

    def folder(self, task_id: str) -> Path:
        """Where the files of a task are while it works. Raises OSError."""
        path = self._path(task_id)
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def forget(self, task_id: str) -> None:
        """The task ended: remove its files."""
        shutil.rmtree(self._path(task_id), ignore_errors=True)

    def keep_only(self, task_ids: Iterable[str]) -> None:
        """Remove the files of all other tasks, which earlier processes left."""
        wanted = {self._path(task_id) for task_id in task_ids}
        for path in self._folder.glob("*"):
            if path not in wanted:
                shutil.rmtree(path, ignore_errors=True)

    def _path(self, task_id: str) -> Path:
        return self._folder / f"{zlib.crc32(task_id.encode()):08x}-{len(task_id)}"

    async def send(self, link: TaskLink, result: TaskResult, progress: Callable[[str, float], None]) -> None:
        """Deliver what has not been delivered. The result says `done` only once the network has the first
        file too. Raises NetworkError when something cannot be delivered after the result was."""
        task_id = link.start.task_id
        is_kept = await self._keep(task_id, result)

        async def send_result() -> None:
            if not result.delivered:
                body = json.dumps(result.members(), separators=(",", ":"), allow_nan=False).encode()
                await link.artifact(body, "application/json", output_id=RESULT_ID, file_name="result.json")
                result.delivered = True
                await note()

        async def note() -> None:
            if is_kept:
                await self._note(task_id, result)

        for file in result.files[result.files_delivered :]:
            try:
                await asyncio.to_thread(_check_whole, file)
                await link.artifact(
                    file.data,
                    file.mime_type,
                    output_id=file.output_id,
                    file_name=file.file_name,
                    before=send_result,
                    progress=progress,
                )
            except NetworkError as error:
                if result.delivered:
                    raise
                result.state = "failed"
                result.error = Fault("internal", f"{file.file_name} could not be delivered: {error}")
                break
            result.files_delivered += 1
            await note()
        await send_result()

    async def _note(self, task_id: str, result: TaskResult) -> None:
        self._journal.note_session(task_id, result.to_journal())
        await self._journal.flushed()

    async def _keep(self, task_id: str, result: TaskResult) -> bool:
        """Whether the result outlives this process; for that, bytes go to the disk."""
        try:
            if not any(file.size_bytes > WORTH_KEEPING_BYTES for file in result.files):
                return False
            for number, file in enumerate(result.files):
                if isinstance(file.data, bytes):
                    path = self.folder(task_id) / f"{number}"
                    await asyncio.to_thread(write_atomically, path, file.data)
                else:
                    path = file.data
                    await asyncio.to_thread(_sync, path)
                if not file.expected:
                    expected = await asyncio.to_thread(_sums, path)
                    result.files[number] = replace(file, data=path, expected=expected)
            # On the disk before the Journal says that they are.
            for folder in (self.folder(task_id), self._folder):
                await asyncio.to_thread(sync_folder, folder)
        except OSError as error:
            # A full disk costs the memory of a crash, not the delivery.
            log.warning("result_not_kept", task=task_id, error=str(error))
            return False
        await self._note(task_id, result)
        return True


def _check_whole(file: ResultFile) -> None:
    """Blocks. Raises Refused for a file that a power cut or a person has damaged since it was made."""
    if isinstance(file.data, bytes) or not file.expected:
        return
    expected_bytes, *checksum = file.expected
    try:
        left_bytes = file.size_bytes
        whole = left_bytes == expected_bytes and (not checksum or _sums(file.data) == file.expected)
    except OSError as error:
        raise Refused(f"the file is lost ({error.strerror}); ask again") from None
    if not whole:
        raise Refused(f"the file is damaged: {left_bytes} of {expected_bytes} bytes are left; ask again")


def _sums(path: Path) -> tuple[int, int]:
    """Size and CRC-32 of a file. Raises OSError."""
    size_bytes = checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(READ_BYTES):
            size_bytes += len(chunk)
            checksum = zlib.crc32(chunk, checksum)
    return size_bytes, checksum


def _sync(path: Path) -> None:
    """Block until this file is on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
