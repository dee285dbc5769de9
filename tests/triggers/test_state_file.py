"""What delegations remember across processes, and damage of the file."""

import json
import os
from pathlib import Path

import pytest

from device_agent.delegation.exchange import Exchange, RuleState
from device_agent.store.store_thread import StoreThread
from device_agent.triggers import state_file
from device_agent.triggers.state_file import StateFile
from device_agent.triggers.timestamps import Stamp


async def test_the_file_remembers_and_forgets_what_is_not_configured(tmp_path: Path) -> None:
    thread = StoreThread()
    path = tmp_path / "delegations.json"
    book = StateFile(path, thread, RuleState)
    await book.load(["a", "b"])
    began = Stamp("boot", 1.5, 7)
    exchange = Exchange(id="x", cause="hot", conditional=True, asked_at_ms=7, began=began, sends=1)
    book.rules["a"] = RuleState(active=True, asks=[began], exchange=exchange, last={"at": 7})
    assert await book.save()
    assert path.stat().st_mode & 0o777 == 0o600
    again = StateFile(path, thread, RuleState)
    await again.load(["a", "c"])
    assert again.rules == {"a": book.rules["a"], "c": RuleState()}
    await thread.close()


async def test_a_full_disk_is_counted(tmp_path: Path) -> None:
    thread = StoreThread()
    book = StateFile(tmp_path / "missing" / "delegations.json", thread, RuleState)
    await book.load(["a"])
    assert not await book.save()
    assert book.failures == 1
    await thread.close()


async def test_the_format_on_disk_stays(tmp_path: Path) -> None:
    """An agent that is updated goes on with what the version before it stored."""
    path = tmp_path / "delegations.json"
    stored = {
        "rules": {
            "a": {
                "active": True,
                "served": True,
                "asks": [["boot", 12.5, 0]],
                "day": "2026-01-01",
                "turn_of": ["boot", 1.0, 7],
                "exchange": {
                    "id": "e",
                    "cause": "hot",
                    "conditional": True,
                    "do": "d1",
                    "asked_at_ms": 5,
                    "turn": "acted",
                    "phase": "open",
                    "began": ["boot", 2.0, 8],
                    "message": "m",
                    "sends": 1,
                    "session": "s",
                    "page": "p",
                    "final_message": "f",
                    "answer": "x",
                    "cut": True,
                    "command": "c",
                    "unclear": "u",
                    "ack": {"id": "e-question", "state": "done"},
                },
                "last": {"at": 9},
            }
        }
    }
    path.write_text(json.dumps(stored))
    thread = StoreThread()
    file = StateFile(path, thread, RuleState)
    await file.load(["a"])
    assert await file.save()
    kept = json.loads(path.read_text())
    assert kept.pop("seal")
    assert kept == stored
    await thread.close()


@pytest.mark.parametrize("damaged", [b"", b"{", b"[]", b'{"rules": {"a": {"asks": 1}}}', b"\xff\xfe"])
async def test_a_damaged_file_is_set_aside(tmp_path: Path, damaged: bytes) -> None:
    path = tmp_path / "delegations.json"
    path.write_bytes(damaged)
    thread = StoreThread()
    file = StateFile(path, thread, RuleState)
    await file.load(["a"])
    assert file.rules == {"a": RuleState()}
    (aside,) = os.listdir(tmp_path)
    assert aside.startswith("delegations.json.damaged-")
    assert (tmp_path / aside).read_bytes() == damaged
    assert await file.save()
    await thread.close()


async def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_file, "FILE_MAX_BYTES", 100)
    path = tmp_path / "delegations.json"
    path.write_text(json.dumps({"rules": {"a": {"day": "x" * 100}}}))
    thread = StoreThread()
    file = StateFile(path, thread, RuleState)
    await file.load(["a"])
    assert file.rules == {"a": RuleState()}
    await thread.close()
