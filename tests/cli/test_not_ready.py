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


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ('[network]\napi_key_file = "usb/key"\n', "usb/key cannot be read"),
        ('[state]\ndirectory = "file/state"\n', "cannot be made (Not a directory)"),
    ],
)
def test_what_is_not_there_yet_is_tried_again(tables: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    config = tmp_path / "agent.toml"
    config.write_text(f'[agent]\nname = "a"\n[state]\ndirectory = "state"\n{tables}')
    if "[state]" in tables:
        config.write_text(f'[agent]\nname = "a"\n{tables}')
    environ = {**os.environ, **({} if "api_key" in tables else {"BLOCKS_API_KEY": "bk_device"})}
    done = subprocess.run(
        [sys.executable, "-m", "device_agent", "run", "--config", str(config)],
        env=environ, capture_output=True, text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 75
    assert said in done.stderr


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
