"""Results and their files: in order, whole, once, and kept for a later process."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from device_agent.errors import Fault, Refused
from device_agent.network import Caller, Part, StartTask
from device_agent.store.journal.journal import Journal
from device_agent.store.store_thread import StoreThread
from device_agent.tasks.result_delivery import WORTH_KEEPING_BYTES, ResultDelivery, ResultFile, TaskResult
from support.fake_task_link import FakeTaskLink, start_of

LARGE = b"x" * 20_000


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    thread = StoreThread()
    journal = Journal(tmp_path / "journal.db", thread)
    await journal.open()
    yield journal
    await journal.close()
    await thread.close()


@pytest.fixture
def delivery(tmp_path: Path, journal: Journal) -> ResultDelivery:
    return ResultDelivery(tmp_path / "requests", journal)


def no_progress(message: str, share: float) -> None: ...


def link_of(journal: Journal) -> FakeTaskLink:
    link = FakeTaskLink(start_of("t1", "request", {"op": "history"}))
    journal.begin_task(link.start, 0)
    return link


def history(data: bytes | Path) -> TaskResult:
    file = ResultFile("history", "history.csv", "text/csv", data)
    return TaskResult("history", "done", {"count": 3}, files=[file])


async def kept(journal: Journal) -> TaskResult | None:
    """What a later process finds."""
    await journal.flushed()
    [(_, task)] = await journal.unfinished_tasks()
    return TaskResult.from_journal(task)


# -- the result -----------------------------------------------------------------------------------------


def test_members_are_the_op_the_state_what_it_adds_and_the_error() -> None:
    result = TaskResult("read", "failed", {"readings": []}, Fault("device_offline", "gone"))
    assert list(result.members().items()) == [
        ("op", "read"),
        ("state", "failed"),
        ("readings", []),
        ("error", {"code": "device_offline", "message": "gone"}),
    ]
    assert TaskResult.from_journal(result.to_journal()) == result


def test_a_task_without_a_result_has_none_in_the_journal() -> None:
    assert TaskResult.from_journal({}) is None


def test_the_journals_form_is_what_earlier_versions_wrote(tmp_path: Path) -> None:
    """An update in the middle of a delivery continues it."""
    saved = {
        "result": '{"op": "history", "state": "done", "count": 3}',
        "files": [["history.csv", "text/csv", str(tmp_path / "0"), "history", 20_000]],
        "said": True,
        "sent": 0,
    }
    result = TaskResult.from_journal({"parcel": saved})
    assert result is not None
    assert (result.op, result.state, result.content) == ("history", "done", {"count": 3})
    assert (result.delivered, result.files_delivered) == (True, 0)
    assert result.files == [ResultFile("history", "history.csv", "text/csv", tmp_path / "0", (20_000,))]
    assert result.to_journal() == {"parcel": saved}


# -- delivery -------------------------------------------------------------------------------------------


async def test_a_small_file_is_delivered_from_memory(delivery: ResultDelivery, journal: Journal) -> None:
    link, result = link_of(journal), history(b"x" * WORTH_KEEPING_BYTES)
    await delivery.send(link, result, no_progress)
    assert list(link.artifacts) == ["result", "history"]
    assert link.result == {"op": "history", "state": "done", "count": 3}
    assert await kept(journal) is None, "not worth a write to the card"


async def test_a_large_file_is_kept_until_it_is_delivered(delivery: ResultDelivery, journal: Journal) -> None:
    link, result = link_of(journal), history(LARGE)
    link.refuse_artifact = "history"
    with pytest.raises(Refused):
        await delivery.send(link, result, no_progress)
    later = await kept(journal)
    assert later is not None
    assert (later.delivered, later.files_delivered) == (True, 0)
    link.refuse_artifact, link.artifacts = "", {}
    await delivery.send(link, later, no_progress)
    assert link.artifacts == {"history": LARGE}, "the result itself is not sent twice"
    later = await kept(journal)
    assert later is not None
    assert later.files_delivered == 1
    await delivery.send(link, later, no_progress)
    assert link.artifacts == {"history": LARGE}


async def test_what_has_no_place_on_the_disk_is_delivered_all_the_same(
    tmp_path: Path, delivery: ResultDelivery, journal: Journal
) -> None:
    (tmp_path / "requests").write_text("a file in the place of the folder")
    link = link_of(journal)
    await delivery.send(link, history(LARGE), no_progress)
    assert link.artifacts["history"] == LARGE
    assert await kept(journal) is None


def test_only_the_files_of_unfinished_tasks_are_kept(delivery: ResultDelivery) -> None:
    for task_id in ("t1", "t2"):
        (delivery.folder(task_id) / "0").write_bytes(b"x")
    delivery.keep_only(["t2"])
    assert list(delivery.folder("t1").iterdir()) == []
    assert [path.name for path in delivery.folder("t2").iterdir()] == ["0"]
    delivery.forget("t2")
    delivery.forget("t3")
    assert list(delivery.folder("t2").iterdir()) == []


class RefusingLink:
    """A caller whose network takes results, but no large file."""

    def __init__(self, *, early: bool) -> None:
        part = Part("request", "application/json", '{"op":"history"}')
        self.start = StartTask("t1", "request", Caller("org", "user"), "org", (part,))
        self.results: list[dict[str, Any]] = []
        self._early = early

    async def artifact(
        self,
        data: bytes,
        mime_type: str,
        *,
        output_id: str,
        file_name: str = "",
        before: Callable[[], Awaitable[None]] | None = None,
        progress: Callable[[str, float], None] | None = None,
    ) -> None:
        if output_id == "result":
            self.results.append(json.loads(data))
            return
        if not self._early and before is not None:
            await before()
        raise Refused("file upload: HTTP 413", 413)


@pytest.mark.parametrize("early", [True, False])
async def test_what_could_not_be_delivered_is_not_completed(early: bool, tmp_path: Path) -> None:
    thread = StoreThread()
    journal = Journal(tmp_path / "journal.db", thread)
    await journal.open()
    link = RefusingLink(early=early)
    result = TaskResult(
        "history", "done", files=[ResultFile("history", "history.csv", "text/csv", b"x" * 20_000)]
    )
    refused = False
    try:
        await ResultDelivery(tmp_path / "requests", journal).send(link, result, lambda message, share: None)  # type: ignore[arg-type]
    except Refused:
        refused = True
    assert refused is not early
    assert [result["state"] for result in link.results] == ["failed" if early else "done"]
    assert result.delivered
    await journal.close()
    await thread.close()


class TakingLink(RefusingLink):
    """A caller whose network takes everything, and remembers the sizes of files."""

    def __init__(self) -> None:
        super().__init__(early=False)
        self.files: list[int] = []

    async def artifact(self, data: Any, mime_type: str, *, output_id: str, **options: Any) -> None:
        if output_id == "result":
            self.results.append(json.loads(data))
            return
        await options["before"]()
        self.files.append(data.stat().st_size if isinstance(data, Path) else len(data))


@pytest.mark.parametrize("left", [b"", b"x" * 19_999, b"x" * 19_999 + b"\0", b"x" * 20_001, None])
async def test_a_file_that_a_power_cut_damaged_is_not_delivered_as_whole(
    left: bytes | None, tmp_path: Path
) -> None:
    """The Journal knows of the file, and the card has half of it, or nothing."""
    thread = StoreThread()
    journal = Journal(tmp_path / "journal.db", thread)
    await journal.open()
    deliveries = ResultDelivery(tmp_path / "requests", journal)
    result = TaskResult(
        "history", "done", files=[ResultFile("history", "history.csv", "text/csv", b"x" * 20_000)]
    )
    with pytest.raises(Refused):
        await deliveries.send(RefusingLink(early=False), result, lambda message, share: None)  # type: ignore[arg-type]
    result.delivered = False
    path = result.files[0].data
    assert isinstance(path, Path)
    kept = TaskResult.from_journal(result.to_journal())
    assert kept is not None
    if left is None:
        path.unlink()
    else:
        path.write_bytes(left)
    link = TakingLink()
    await deliveries.send(link, kept, lambda message, share: None)  # type: ignore[arg-type]
    assert [result["state"] for result in link.results] == ["failed"]
    assert link.files == []
    await journal.close()
    await thread.close()
