"""The identity file: what is kept over restarts, and what happens to a damaged one."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from device_agent.network.blocks.identity import Identity, IdentityFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "identity.json"


def test_the_instance_id_and_the_answers_of_the_network_are_kept(path: Path):
    first = IdentityFile(path, "greenhouse")
    first.identity.control_token = "secret"
    first.identity.network_keys = ["pub", "sub"]
    first.save()
    again = IdentityFile(path, "greenhouse").identity
    assert again == first.identity
    assert again.instance_id.startswith("AG-greenhouse-")


def test_the_file_is_readable_by_its_owner_alone_and_no_token_is_shown(path: Path):
    file = IdentityFile(path, "greenhouse")
    file.identity.access_token = file.identity.refresh_token = file.identity.control_token = "secret"
    file.save()
    assert path.stat().st_mode & 0o777 == 0o600
    assert "secret" not in repr(file.identity)


def test_another_name_is_another_agent(path: Path):
    first = IdentityFile(path, "greenhouse").identity
    second = IdentityFile(path, "garage").identity
    assert second.instance_id != first.instance_id
    assert second.agent_name == "garage"


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b'{"instance_id": "AG-greenh'])
def test_a_damaged_file_is_set_aside_and_a_new_identity_made(path: Path, damage: bytes):
    before = IdentityFile(path, "greenhouse").identity.instance_id
    path.write_bytes(damage)
    after = IdentityFile(path, "greenhouse").identity.instance_id
    assert after != before
    (aside,) = path.parent.glob("identity.json.damaged-*")
    assert aside.read_bytes() == damage
    assert IdentityFile(path, "greenhouse").identity.instance_id == after


@pytest.mark.parametrize("text", ["[]", "null", "7"])
def test_what_is_no_object_is_replaced(path: Path, text: str):
    path.write_text(text)
    assert IdentityFile(path, "greenhouse").identity.agent_name == "greenhouse"
    assert json.loads(path.read_text())["agent_name"] == "greenhouse"


def test_members_of_a_wrong_type_and_of_other_versions_are_left_out(path: Path):
    good = asdict(IdentityFile(path, "greenhouse").identity)
    path.write_text(json.dumps({**good, "control_token": 7, "network_keys": "no", "of_a_later_version": 1}))
    again = IdentityFile(path, "greenhouse").identity
    assert again == Identity(**good)


@pytest.mark.parametrize("instance", ["", "AG-x", "greenhouse", "AG-greenhouse-" + "z" * 36])
def test_a_malformed_instance_id_is_replaced(path: Path, instance: str):
    good = asdict(IdentityFile(path, "greenhouse").identity)
    path.write_text(json.dumps({**good, "instance_id": instance}))
    assert IdentityFile(path, "greenhouse").identity.instance_id not in ("", instance)


def test_the_file_is_written_only_when_something_changed(path: Path):
    file = IdentityFile(path, "greenhouse")
    before = path.stat().st_ino
    file.save()
    assert path.stat().st_ino == before
    file.identity.control_timetoken = "17"
    file.save()
    assert path.stat().st_ino != before


def test_a_disk_that_cannot_be_written_stops_nothing(path: Path):
    file = IdentityFile(path.parent / "missing" / "identity.json", "greenhouse")
    file.identity.control_timetoken = "17"
    file.save()
    path.parent.joinpath("missing").mkdir()
    file.save()
    kept = IdentityFile(path.parent / "missing" / "identity.json", "greenhouse").identity
    assert kept.control_timetoken == "17"
