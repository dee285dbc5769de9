"""The first start on a full disk, and after a command of root's: real processes, real mounts, real users."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from support.processes import json_lines
from support.serial_peer import SerialPeer
from support.waiting import LIMIT_S, until

CONFIG = """
[agent]
name = "first"
[network]
kind = "none"
[state]
directory = "{state}"
[history]
enabled = false
[buses.relay]
kind = "serial"
port = "{port}"
[devices.pump]
driver = "serial-lines"
bus = "relay"
pattern = 'P (?P<on>[01])'
command = "P {{on}}\\n"
points.on = {{ type = "boolean", write = true, safe = false }}
"""
NOBODY = 65_534


class Owner:
    """Somebody at the device; `before` is how his commands are begun."""

    def __init__(self, folder: Path, state: Path, port: str, before: Sequence[str] = ()) -> None:
        self.state, self._before = state, before
        self._config, self._log = folder / "agent.toml", folder / "daemon.log"
        self._config.write_text(CONFIG.format(state=state, port=port))

    def command(self, *words: str, before: Sequence[str] = ()) -> list[str]:
        program = [sys.executable, "-m", "device_agent", "--config", str(self._config)]
        return [*(before or self._before), *program, *words]

    def does(self, *words: str) -> tuple[int, str]:
        """A command's exit code, and what it said on standard error."""
        done = subprocess.run(
            self.command(*words), capture_output=True, text=True, timeout=3 * LIMIT_S, check=False
        )
        return done.returncode, done.stderr

    def starts(self, before: Sequence[str] = ()) -> "subprocess.Popen[bytes]":
        """The daemon, when it is at work."""
        with self._log.open("wb") as log:
            daemon = subprocess.Popen(
                self.command("run", "--log", "json", before=before), stdout=log, stderr=log
            )

        def ready() -> bool:
            assert daemon.poll() is None, self._log.read_text()
            return any(entry["event"] == "ready" for entry in json_lines(self._log))

        until(ready, "it is at work")
        return daemon


@pytest.fixture
def peer() -> Iterator[SerialPeer]:
    made = SerialPeer()
    yield made
    made.close()


# -- a disk without room ------------------------------------------------------------------------------------


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[list[str]]:
    """How to run something where a disk of 2 MB is mounted on `tmp_path / "state"`."""
    (tmp_path / "state").mkdir(mode=0o700)
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    mount = f"mount -t tmpfs -o size=2m,mode=0700 disk '{tmp_path}/state' && echo mounted && exec sleep 600"
    try:
        holder = subprocess.Popen(
            ["unshare", *user, "--mount", "sh", "-c", mount],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
    except OSError:
        pytest.skip("there is no unshare to mount a disk for this test alone")
    assert holder.stdout is not None
    try:
        if holder.stdout.readline() != "mounted\n":
            pytest.skip("this machine lets nobody mount a disk")
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        yield ["nsenter", f"--target={holder.pid}", *user, "--mount", f"--wd={Path.cwd()}"]
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


def test_a_first_start_on_a_full_disk(tmp_path: Path, inside: list[str], peer: SerialPeer) -> None:
    """It says what to do, nothing moves, and all is well when there is room."""
    owner = Owner(tmp_path, tmp_path / "state", peer.path, inside)
    ballast = owner.state / "ballast"
    subprocess.run([*inside, "sh", "-c", f"cat /dev/zero > '{ballast}' 2>/dev/null"], check=False)
    for words in (("run",), ("set", "pump", "on", "true")):
        code, said = owner.does(*words)
        assert code == 75, f"{words}: {said}"
        assert "emergency_stop cannot be made (No space left on device): make room" in said, words
        assert "Traceback" not in said
        assert "unexpected" not in said
    code, said = owner.does("estop")
    assert (code, "no daemon answers" in said) == (69, True), said
    assert peer.heard == b""
    subprocess.run([*inside, "rm", ballast], check=True)
    daemon = owner.starts()
    try:
        assert owner.does("set", "pump", "on", "true")[0] == 0
        until(lambda: peer.heard.endswith(b"P 1\n"), "it obeys")
        assert owner.does("estop")[0] == 0
        until(lambda: peer.heard.endswith(b"P 0\n"), "and stops")
        code, said = owner.does("set", "pump", "on", "true")
        assert (code, "the emergency stop was pressed" in said) == (77, True), said
    finally:
        daemon.terminate()
        assert daemon.wait(LIMIT_S) == 0


# -- what root leaves behind --------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="only root leaves files that another user cannot open")
def test_a_command_of_root_before_the_first_start_leaves_nothing_in_the_way(peer: SerialPeer) -> None:
    """The directory is the service's, and so is all that root's `set` made in it."""
    # He may read everything, for this program may lie in root's own directory, and write what is his.
    reads = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    as_nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *reads]
    tried = [*as_nobody, "sh", "-c", '"$0" -c "import device_agent"', sys.executable]
    if shutil.which("setpriv") is None or subprocess.run(tried, capture_output=True, check=False).returncode:
        pytest.skip("another user cannot run this program from here")
    folder = Path(tempfile.mkdtemp())  # pytest's own is closed to others
    try:
        folder.chmod(0o755)
        os.chmod(peer.path, 0o666)
        state = folder / "state"
        state.mkdir(mode=0o700)
        os.chown(state, NOBODY, NOBODY)
        owner = Owner(folder, state, peer.path)
        held = subprocess.Popen(owner.command("set", "pump", "on", "true"), stderr=subprocess.PIPE, text=True)
        until(lambda: peer.heard.endswith(b"P 1\n"), "it is obeyed")
        held.terminate()
        assert held.wait(LIMIT_S) in (0, -15, 130, 143)
        assert held.stderr is not None
        held.stderr.close()
        until(lambda: peer.heard.endswith(b"P 0\n"), "and is safe when the command ends")
        made = [state, *state.rglob("*")]
        assert len(made) > 2
        assert {path.lstat().st_uid for path in made} == {NOBODY}
        daemon = owner.starts(as_nobody)
        try:
            assert owner.does("set", "pump", "on", "true") == (0, "")
        finally:
            daemon.terminate()
            assert daemon.wait(LIMIT_S) == 0
    finally:
        shutil.rmtree(folder)
