"""A start that may succeed later ends with 75, which the service manager tries again."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from device_agent.errors import NotReady
from device_agent.safety import emergency_stop
from device_agent.safety.emergency_stop import StopLatch
from support.waiting import LIMIT_S


def test_a_state_directory_that_is_not_there_yet_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    config = tmp_path / "agent.toml"
    config.write_text('[agent]\nname = "a"\n[state]\ndirectory = "file/state"\n')
    done = subprocess.run(
        [sys.executable, "-m", "device_agent", "run", "--config", str(config)],
        capture_output=True, text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 75
    assert "cannot be made (Not a directory)" in done.stderr


def test_a_full_disk_at_the_first_start_leaves_no_stop_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "latch.json"
    with monkeypatch.context() as disk:
        disk.setattr(emergency_stop, "write_atomically", full)
        with pytest.raises(NotReady, match="No space left on device"):
            StopLatch(path).load()
    latch = StopLatch(path)
    latch.load()
    assert latch.state is None
