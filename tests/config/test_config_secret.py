"""The API key: three places in their order, and never in a message."""

import pytest

from device_agent.config.secret import api_key
from device_agent.errors import ConfigError, NotReady
from support.access_lists import AS_CREDENTIALS, GROUP, MASK, NAMED_GROUP, OTHER, OWNER, USER, access_list

KEY = "bk_0123456789abcdef"


@pytest.fixture
def network(load_text):
    def make(line=""):
        return load_text(f'[agent]\nname = "a"\n[network]\n{line}\n').network

    return make


@pytest.fixture
def key_file(tmp_path):
    path = tmp_path / "key"
    path.write_text(f"{KEY}\n")
    path.chmod(0o600)
    return path


def test_the_credential_comes_first(network, key_file, tmp_path):
    (tmp_path / "blocks_api_key").write_text("bk_credential\n")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path), "BLOCKS_API_KEY": "bk_variable"}
    assert api_key(network('api_key_file = "key"'), environ=environ) == "bk_credential"
    for nothing in ("", "\n"):
        (tmp_path / "blocks_api_key").write_text(nothing)
        assert api_key(network('api_key_file = "key"'), environ=environ) == "bk_variable"


def test_the_file_beside_the_configuration_is_looked_at_last(network, key_file, tmp_path):
    beside = tmp_path / "api_key"
    with pytest.raises(ConfigError, match=rf"{beside}\): write it to {beside}"):
        api_key(network(), tmp_path, environ={})
    key_file.rename(beside)
    assert api_key(network(), tmp_path, environ={}) == KEY
    beside.chmod(0o644)
    with pytest.raises(ConfigError, match=r"may be used by others than its owner \(mode 0644\)"):
        api_key(network(), tmp_path, environ={})


def test_then_the_variable_then_the_file(network, key_file, tmp_path):
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path), "BLOCKS_API_KEY": "bk_variable"}
    assert api_key(network('api_key_file = "key"'), environ=environ) == "bk_variable"
    assert api_key(network('api_key_file = "key"'), environ={}) == KEY
    assert api_key(network('api_key_file = "key"'), environ={"BLOCKS_API_KEY": " "}) == KEY


def test_without_a_key_the_places_are_named(network):
    with pytest.raises(
        ConfigError, match=r"credential blocks_api_key, \$BLOCKS_API_KEY, network.api_key_file"
    ):
        api_key(network(), environ={})


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o644, 0o660, 0o602])
def test_a_file_that_others_may_use_is_refused(network, key_file, mode):
    key_file.chmod(mode)
    with pytest.raises(ConfigError) as caught:
        api_key(network('api_key_file = "key"'), environ={})
    assert f"(mode {mode:04o}): run chmod 600 {key_file}" in str(caught.value)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("content", ["", "\n", "two words", "two\nlines", "ü", "x" * 600, "\0"])
def test_what_cannot_be_a_key_is_refused_without_repeating_it(network, key_file, content):
    key_file.write_text(content)
    with pytest.raises(ConfigError) as caught:
        api_key(network('api_key_file = "key"'), environ={})
    assert "does not hold an API key" in str(caught.value)
    assert not content.strip() or content.strip() not in str(caught.value).replace(str(key_file), "")


def test_a_missing_file_is_named(network, tmp_path):
    with pytest.raises(NotReady, match=r"key cannot be read \(No such file or directory\)"):
        api_key(network('api_key_file = "key"'), environ={})
    with pytest.raises(NotReady, match=r"cannot be read \(Is a directory\)"):
        api_key(network(f'api_key_file = "{tmp_path}"'), environ={})


def test_an_access_list_may_let_one_user_in_as_systemd_s_credentials_do(network, key_file):
    access_list(key_file, *AS_CREDENTIALS)
    assert key_file.stat().st_mode & 0o777 == 0o440
    assert api_key(network('api_key_file = "key"'), environ={}) == KEY


@pytest.mark.parametrize("more", [[(GROUP, 4), (MASK, 4)], [(GROUP, 0), (NAMED_GROUP, 4, 99), (MASK, 4)]])
def test_an_access_list_that_lets_a_group_in_is_refused(network, key_file, more):
    access_list(key_file, (OWNER, 4), (USER, 4, 12345), *more, (OTHER, 0))
    with pytest.raises(ConfigError, match="may be used by others"):
        api_key(network('api_key_file = "key"'), environ={})
