"""A start takes over what an earlier one has checked, and only if nothing has changed since."""

import os
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest

from device_agent.config import checked_before, handover, load
from device_agent.config.handover import Handover
from device_agent.errors import ConfigError, NotReady
from support.waiting import until

CONFIG = """
[agent]
name = "known"
[devices.board]
driver = "host"
"""
ANSWER = b"what was checked"


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("STATE_DIRECTORY", str(folder))
    return folder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "agent.toml"
    file.write_text(CONFIG)
    return file


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that modules are imported from, and no others, so that nothing else may change meanwhile."""
    folder = tmp_path / "packages"
    folder.mkdir()
    (folder / "driver.py").write_text("a = 1\n")
    monkeypatch.setattr(sys, "path", [str(folder)])
    monkeypatch.setattr(checked_before, "_files", lambda: [str(folder / "driver.py")])
    return folder


def keep(path: Path) -> None:
    """As a process does that begins well after what it imports has changed."""

    def kept() -> bool:
        checked_before.Check(path).keep(ANSWER)
        return checked_before.known(path) == ANSWER

    until(kept, "the clock of the file system to be left behind")


@pytest.mark.usefixtures("source", "state")
def test_a_later_start_knows_it(path: Path) -> None:
    assert checked_before.known(path) is None
    keep(path)
    assert checked_before.known(path) == ANSWER


@pytest.mark.usefixtures("state")
@pytest.mark.parametrize(
    "change",
    [
        lambda path, source: path.write_text(CONFIG.replace("known", "other")),
        lambda path, source: (source / "driver.py").write_text("a = 2\n"),
        lambda path, source: (source / "driver.py").unlink(),
        lambda path, source: (source / "another-1.0.dist-info").mkdir(),
        lambda path, source: os.environ.update(RUNTIME_DIRECTORY="/run/other"),
    ],
    ids=["configuration", "driver", "driver removed", "package installed", "environment"],
)
def test_whatever_changes_it_is_checked_anew(
    path: Path, source: Path, change: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/one")
    keep(path)
    change(path, source)
    assert checked_before.known(path) is None


@pytest.mark.usefixtures("source")
def test_what_is_damaged_or_not_ours_alone_is_not_taken(path: Path, state: Path) -> None:
    keep(path)
    file = state / checked_before.FILE
    whole = file.read_bytes()
    flipped = whole[:50] + bytes([whole[50] ^ 1]) + whole[51:]
    for damaged in (b"", whole[:-1], whole[:100], flipped, pickle.dumps("no")):
        file.write_bytes(damaged)
        assert checked_before.known(path) is None
    file.write_bytes(whole)
    for place in (file, state):
        mode = place.stat().st_mode
        place.chmod(mode | 0o020)
        assert checked_before.known(path) is None, "others could have written it"
        place.chmod(mode)
    assert checked_before.known(path) == ANSWER
    file.rename(state / "elsewhere")
    file.symlink_to(state / "elsewhere")
    assert checked_before.known(path) is None


def test_what_changed_during_the_check_is_not_kept(path: Path, source: Path, state: Path) -> None:
    check = checked_before.Check(path)
    path.write_text(CONFIG.replace("known", "other"))
    check.keep(ANSWER)
    check = checked_before.Check(path)
    (source / "driver.py").write_text("a = 2\n")
    check.keep(ANSWER)
    assert list(state.iterdir()) == []


def test_the_second_start_starts_no_process(
    path: Path, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kept() -> bool:
        assert Handover(path).config() == load(path)
        return checked_before.known(path) is not None

    # Others may be installing packages beside this test.
    until(kept, "an answer that is kept")
    monkeypatch.setattr(handover, "_command", lambda path: (sys.executable, "-c", "import os; os._exit(9)"))
    with Handover(path) as again:
        assert again.config() == load(path)
    path.write_text("[agent]\nname = 7\n")
    with pytest.raises(NotReady, match="ended with 9"):
        Handover(path).config()


def test_a_faulty_configuration_is_never_kept(path: Path, state: Path) -> None:
    path.write_text("[agent]\nname = 7\n")
    with pytest.raises(ConfigError):
        Handover(path).config()
    assert list(state.iterdir()) == []
