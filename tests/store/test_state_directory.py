"""One user, one process, one machine: what the state directory refuses, and what it sets aside."""

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from device_agent.errors import AgentError, ConfigError, NotReady
from device_agent.store import state_directory
from device_agent.store.state_directory import bind, complaints, in_use, machine, not_mounted, prepare


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "state"
    path.mkdir(mode=0o700)
    return path


def tree(root: Path, **files: bytes) -> Path:
    """A machine whose files (`board`, `soc`, `id`) have these contents."""
    names = {
        "board": state_directory.SERIAL_NUMBERS[0],
        "soc": state_directory.SERIAL_NUMBERS[1],
        "id": state_directory.MACHINE_ID,
    }
    for name, content in files.items():
        path = root / names[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def names(folder: Path) -> list[str]:
    return sorted(path.name.partition("-")[0] for path in folder.iterdir())


def test_two_boards_with_one_machine_id_are_two_machines(tmp_path: Path) -> None:
    one = machine(tree(tmp_path / "1", board=b"10000000a1\0", id=b"one image\n"))
    two = machine(tree(tmp_path / "2", board=b"10000000a2\0", id=b"one image\n"))
    assert one != two
    assert "image" not in one


def test_without_a_board_number_the_soc_or_the_machine_id_tells(tmp_path: Path) -> None:
    socs = {machine(tree(tmp_path / f"soc{n}", soc=b"%d" % n, id=b"x", board=b"0000\0")) for n in (1, 2)}
    ids = {machine(tree(tmp_path / f"id{n}", id=b"id %d" % n)) for n in (1, 2)}
    assert len(socs | ids) == 4
    assert machine(tree(tmp_path / "new", id=b"uninitialized\n")) == machine(tmp_path / "bare") == ""


def test_a_copy_on_another_machine_loses_identity_and_sessions_and_keeps_the_rest(folder: Path) -> None:
    for name in ("identity.json", "journal.db", "outbox.db", "history.db", "latch"):
        (folder / name).write_bytes(b"x")
    bind(folder, "first")
    assert names(folder) == ["history.db", "identity.json", "journal.db", "latch", "machine", "outbox.db"]
    bind(folder, "")
    bind(folder, "first")
    assert (folder / "identity.json").exists()
    bind(folder, "second")
    aside = [f"{name}.copied" for name in ("identity.json", "journal.db", "outbox.db")]
    assert names(folder) == sorted([*aside, "history.db", "latch", "machine"])
    (folder / "identity.json").write_bytes(b"y")
    bind(folder, "second")
    assert (folder / "identity.json").read_bytes() == b"y"


def test_an_identity_without_a_machine_is_taken_and_said(folder: Path) -> None:
    (folder / "identity.json").write_bytes(b"x")
    with capture_logs() as said:
        bind(folder, "this")
        bind(folder, "this")
    assert [entry["event"] for entry in said] == ["state_without_machine"]
    assert names(folder) == ["identity.json", "machine"]


def test_one_at_a_time(folder: Path) -> None:
    with in_use(folder), pytest.raises(AgentError, match="another daemon or command uses"), in_use(folder):
        pass
    with in_use(folder):
        assert list(folder.glob("*lock*")) == []


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o1777])
def test_what_others_can_write_is_refused(folder: Path, mode: int) -> None:
    folder.chmod(mode)
    with pytest.raises(ConfigError, match="chmod 700"), in_use(folder):
        pass
    folder.chmod(0o755)
    assert complaints(folder) == []


def test_a_ram_disk_for_its_runtime_files_may_be_linked_in(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    (folder / "run").symlink_to(tmp_path / "memory")
    assert complaints(folder) == []
    if os.geteuid() == 0:
        os.lchown(folder / "run", 12345, 12345)
        assert complaints(folder) == [f"{folder / 'run'} is a symbolic link: remove it"]


def test_a_symbolic_link_in_it_is_refused_before_it_is_followed(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    (folder / "journal.db").symlink_to(target)
    with pytest.raises(ConfigError, match=r"journal.db is a symbolic link"), in_use(folder):
        pass
    assert not target.exists()


FSTAB = """
# /dev/sda1 /mnt/comment ext4 defaults 0 2
PARTUUID=1 / ext4 defaults,noatime 0 1
proc /proc proc defaults 0 0
UUID=2 /mnt/solid\\040state ext4 defaults,nofail 0 2
UUID=3 /mnt/by-hand ext4 noauto 0 0
UUID=4 none swap sw 0 0
broken
"""


@pytest.mark.parametrize(
    ("where", "missing"),
    [
        ("/mnt/solid state/device-agent", True),
        ("/mnt/solid state", True),
        ("/mnt/solid states", False),
        ("/mnt/by-hand/device-agent", False),
        ("/mnt/comment/device-agent", False),
        ("/var/lib/device-agent", False),
    ],
)
def test_a_disk_that_is_not_mounted_yet_is_named(tmp_path: Path, where: str, missing: bool) -> None:
    (tmp_path / "etc").mkdir()
    # The root of a machine is always mounted; a folder of this test is not.
    (tmp_path / "etc" / "fstab").write_text(FSTAB.replace(" / ", " /rootfs "))
    why = not_mounted(Path(where), tmp_path)
    assert ("mount /mnt/solid state" in why) is missing
    assert not_mounted(Path(where), tmp_path / "no fstab") == ""


def test_a_mounted_disk_is_not_missed(tmp_path: Path) -> None:
    assert not_mounted(Path("/proc/self")) == ""


def test_nothing_is_made_beside_a_disk_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_directory, "not_mounted", lambda folder: "it is not mounted")
    with pytest.raises(NotReady, match=r"state\.directory: it is not mounted"):
        prepare(tmp_path / "state")
    assert not (tmp_path / "state").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root leaves files of root's")
def test_what_root_leaves_in_the_service_s_directory_is_the_service_s(folder: Path) -> None:
    os.chown(folder, 12_345, 12_346)
    with in_use(folder):
        (folder / "run").mkdir()
        (folder / "run" / "journal.log").touch(0o600)
    owners = {(path.stat().st_uid, path.stat().st_gid) for path in (folder, *folder.rglob("*"))}
    assert owners == {(12_345, 12_346)}


def test_a_file_that_this_user_cannot_open_is_named_with_the_remedy(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "journal.db").touch()
    monkeypatch.setattr(state_directory.os, "access", lambda path, mode: not path.endswith("journal.db"))
    owner = folder.stat().st_uid
    with (
        pytest.raises(ConfigError, match=f"journal.db in .* run sudo chown -R {owner} {folder}"),
        in_use(folder),
    ):
        raise AssertionError("it was used")
