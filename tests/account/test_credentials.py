"""The stored login: what is kept, who may read it, and which key is used."""

import json
from pathlib import Path
from typing import Any

import pytest

from device_agent.account.credentials import (
    KEY_MAX,
    Credentials,
    credentials_path,
    expired,
    is_key,
    key_and_source,
    load,
    save,
)
from device_agent.config.models import NetworkConfig
from device_agent.errors import ConfigError, Rejected
from support.access_lists import AS_CREDENTIALS, access_list

LOGIN = Credentials("bk_key", "org_1", "Org", "k1", "2099-01-01T00:00:00Z")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "blocks" / "credentials.json"


def write(path: Path, body: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(body if isinstance(body, str) else json.dumps(body))
    path.chmod(0o600)


def test_a_login_is_kept_whole_and_private(path: Path):
    save(path, LOGIN)
    assert load(path) == LOGIN
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert list(path.parent.iterdir()) == [path]
    assert "bk_key" not in repr(load(path))


def test_the_file_has_the_form_of_the_vendor_s_command_line(path: Path):
    save(path, Credentials("bk_key", key_id="k1"))
    assert path.read_text() == '{\n  "schema_version": 2,\n  "api_key": "bk_key",\n  "key_id": "k1"\n}\n'


def test_without_a_file_there_is_no_login(path: Path):
    assert load(path) is None


def test_a_file_that_others_may_read_is_refused(path: Path):
    save(path, LOGIN)
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        load(path)


def test_an_access_list_may_let_one_user_in(path: Path):
    save(path, LOGIN)
    access_list(path, *AS_CREDENTIALS)
    assert load(path) == LOGIN


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("{", "is damaged"),
        ([], "older version"),
        ({"schema_version": 1, "api_key": "bk"}, "older version"),
        ({"schema_version": 3, "api_key": "bk"}, "newer version"),
        ({"schema_version": 2}, "is damaged"),
        ({"schema_version": 2, "api_key": "two words"}, "is damaged"),
        ({"schema_version": 2, "api_key": "bk", "org_id": 7}, "is damaged"),
    ],
)
def test_a_file_that_cannot_be_used_says_what_to_do(path: Path, body: Any, sentence: str):
    write(path, body)
    with pytest.raises(ConfigError, match=sentence):
        load(path)


def test_the_zero_time_of_go_means_never(path: Path):
    write(path, {"schema_version": 2, "api_key": "bk", "expires_at": "0001-01-01T00:00:00Z"})
    assert load(path) == Credentials("bk")


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("b", True),
        ("b" * KEY_MAX, True),
        ("b" * (KEY_MAX + 1), False),
        ("", False),
        ("b k", False),
        ("é", False),
    ],
)
def test_what_can_be_a_key(text: str, good: bool):
    assert is_key(text) is good


@pytest.mark.parametrize(
    ("at", "over"),
    [
        ("2001-01-01T00:00:00Z", True),
        ("2001-01-01T00:00:00", True),
        ("2099-01-01T00:00:00+02:00", False),
        ("soon", False),
        ("", False),
    ],
)
def test_whether_a_login_has_expired(at: str, over: bool):
    assert expired(at) is over


# -- which key ----------------------------------------------------------------------------------------------


def test_the_key_is_of_the_environment_then_of_the_login_then_of_the_daemon(tmp_path: Path):
    environ = {"HOME": str(tmp_path)}
    login = credentials_path(environ)
    assert login == tmp_path / ".config" / "blocks" / "credentials.json"
    file = tmp_path / "key"
    file.write_text("bk_daemon\n")
    file.chmod(0o600)
    network = NetworkConfig(api_key_file=file)
    assert key_and_source(network, environ) == ("bk_daemon", str(file), None)
    save(login, LOGIN)
    assert key_and_source(network, environ) == ("bk_key", str(login), LOGIN)
    chosen = {**environ, "BLOCKS_API_KEY": "bk_chosen"}
    assert key_and_source(network, chosen) == ("bk_chosen", "$BLOCKS_API_KEY", None)


def test_an_expired_login_is_not_passed_over(tmp_path: Path):
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    save(credentials_path(environ), Credentials("bk", expires_at="2001-01-01T00:00:00Z"))
    with pytest.raises(Rejected, match="device-agent login"):
        key_and_source(NetworkConfig(), environ)


def test_without_any_key_there_is_advice(tmp_path: Path):
    with pytest.raises(Rejected, match="nobody is logged in"):
        key_and_source(NetworkConfig(), {"HOME": str(tmp_path)})
