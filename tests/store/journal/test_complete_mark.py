"""Whether a command from before the start is known to be new."""

from pathlib import Path

from device_agent.store.journal.complete_mark import ABSENT_S, CompleteMark


class Lives:
    """Processes one after the other, on one disk, with a clock that is set by hand."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "journal.complete"
        self.now_s = 1000.0

    def start(self, *, first: bool = False) -> CompleteMark:
        mark = CompleteMark(self.path, lambda: self.now_s)
        mark.open(first_start=first)
        return mark


def test_without_a_lost_note_all_is_known(tmp_path: Path) -> None:
    lives = Lives(tmp_path)
    assert lives.start(first=True).covers(3600)
    assert lives.start().covers(3600)
    assert lives.path.stat().st_mode & 0o777 == 0o600


def test_after_a_lost_note_only_what_was_sent_since_the_start_is_known(tmp_path: Path) -> None:
    lives = Lives(tmp_path)
    mark = lives.start(first=True)
    mark.note_lost()
    assert mark.covers(3600), "this process has seen all itself"
    lives.now_s += 10
    mark.note_written()
    lives.now_s += 10
    again = lives.start()
    assert not again.covers(0.5)
    lives.now_s += 2
    assert again.covers(1.5)
    assert not again.covers(2.5)
    # One that had no trouble itself cannot vouch for what was sent before it.
    assert not lives.start().covers(0.5)


def test_a_day_after_the_last_lost_note_all_is_known_again(tmp_path: Path) -> None:
    lives = Lives(tmp_path)
    lives.start(first=True).note_lost()
    mark = lives.start()
    lives.now_s += ABSENT_S - 1
    mark.note_written()
    assert not lives.path.exists()
    mark.note_lost()
    lives.now_s += ABSENT_S - 1
    mark.note_written()
    assert not lives.path.exists(), "a day after the last one"
    lives.now_s += 1
    mark.note_written()
    assert lives.start().covers(3600)


def test_a_journal_without_a_mark_may_lack_notes(tmp_path: Path) -> None:
    """One of an earlier version, or one that was set aside."""
    assert not Lives(tmp_path).start().covers(0.5)


def test_a_disk_without_room_for_the_mark_is_no_error(tmp_path: Path) -> None:
    lives = Lives(tmp_path / "absent")
    mark = lives.start(first=True)
    assert mark.covers(3600)
    mark.note_lost()
    assert not lives.start().covers(0.5)
