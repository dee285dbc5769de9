"""The key that a person logged in with, in the file that the vendor's `blocks` command line uses too."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from device_agent.config.models import NetworkConfig
from device_agent.config.secret import VARIABLE, api_key
from device_agent.errors import ConfigError, Rejected
from device_agent.store.files import open_to_others, write_atomically

SCHEMA_VERSION = 2
KEY_MAX = 512
_FILE_MAX_BYTES = 65_536
# Go's zero time, which its JSON writes for "never".
_NEVER = "0001-01-01"


@dataclass(frozen=True, slots=True)
class Credentials:
    """One login. `expires_at` is an RFC 3339 time, empty for never."""

    api_key: str = field(repr=False)
    org_id: str = ""
    org_name: str = ""
    key_id: str = ""
    expires_at: str = ""


def credentials_path(environ: Mapping[str, str] = os.environ) -> Path:
    """`blocks/credentials.json` in $XDG_CONFIG_HOME, else in ~/.config."""
    home = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME") or "~").expanduser() / ".config")
    return Path(home) / "blocks" / "credentials.json"


def load(path: Path) -> Credentials | None:
    """The stored login, None without one. Raises ConfigError if the file cannot be used."""
    try:
        with path.open("rb") as file:
            others = open_to_others(path, file.fileno())
            body = json.loads(file.read(_FILE_MAX_BYTES))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}): let this user read it, or log in again"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is damaged: run `device-agent login` again") from error
    if others:
        raise ConfigError(f"{path} {others}")
    return _checked(path, body)


def _checked(path: Path, body: Any) -> Credentials:
    version = body.get("schema_version") if isinstance(body, dict) else None
    if not isinstance(version, int) or version < SCHEMA_VERSION:
        raise ConfigError(f"{path} is from an older version: run `device-agent login` again")
    if version > SCHEMA_VERSION:
        raise ConfigError(f"{path} is from a newer version (schema {version}): upgrade device-agent")
    texts = {each.name: body.get(each.name) or "" for each in fields(Credentials)}
    if not all(isinstance(text, str) for text in texts.values()) or not is_key(texts["api_key"]):
        raise ConfigError(f"{path} is damaged: run `device-agent login` again")
    if texts["expires_at"].startswith(_NEVER):
        texts["expires_at"] = ""
    return Credentials(**texts)


def save(path: Path, login: Credentials) -> None:
    """Replace the file as a whole, mode 0600 in a folder of mode 0700. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    members = {name: value for name, value in asdict(login).items() if value}
    write_atomically(
        path, f"{json.dumps({'schema_version': SCHEMA_VERSION, **members}, indent=2)}\n".encode()
    )


def is_key(text: str) -> bool:
    """Whether this can be an API key: one word of printable characters."""
    return 0 < len(text) <= KEY_MAX and text.isascii() and text.isprintable() and " " not in text


def key_and_source(
    network: NetworkConfig, environ: Mapping[str, str] = os.environ
) -> tuple[str, str, Credentials | None]:
    """The API key for account commands, its source in words, and the login if the key comes from it.

    It is $BLOCKS_API_KEY, else that of the login, else that of the daemon (`network.api_key_file`).
    Raises Rejected `not_allowed` if there is none, or if the login has expired.
    """
    if environ.get(VARIABLE, "").strip():
        return api_key(network, environ={VARIABLE: environ[VARIABLE]}), f"${VARIABLE}", None
    path = credentials_path(environ)
    login = load(path)
    if login is not None:
        if expired(login.expires_at):
            raise Rejected(
                "not_allowed",
                f"the key in {path} was valid until {login.expires_at}: run `device-agent login` again",
            )
        return login.api_key, str(path), login
    if network.api_key_file is not None:
        return api_key(network, environ=environ), str(network.api_key_file), None
    raise Rejected(
        "not_allowed", f"nobody is logged in: run `device-agent login`, or give the key as ${VARIABLE}"
    )


def expired(expires_at: str) -> bool:
    """Whether an RFC 3339 time is past; false for one that cannot be read, which the network then checks."""
    try:
        at = datetime.fromisoformat(expires_at)
    except ValueError:
        return False
    return (at if at.tzinfo else at.replace(tzinfo=UTC)) <= datetime.now(UTC)
