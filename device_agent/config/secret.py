"""The API keys, each from one of three places. They are never in the configuration, a log or a message."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from device_agent.config.delegation import DelegationConfig
from device_agent.config.models import NetworkConfig
from device_agent.errors import ConfigError, NotReady
from device_agent.store.files import open_to_others

CREDENTIAL = "blocks_api_key"
VARIABLE = "BLOCKS_API_KEY"
SESSIONS_CREDENTIAL = "blocks_sessions_api_key"
SESSIONS_VARIABLE = "BLOCKS_SESSIONS_API_KEY"
# Beside the configuration, where it names no other files.
KEY_FILE = "api_key"
SESSIONS_KEY_FILE = "sessions_api_key"

_WITHHELD = ("BLOCKS_", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_")

_KEY = re.compile(r"[\x21-\x7e]{1,512}")
_FILE_MAX_BYTES = 4096


@dataclass(frozen=True, slots=True)
class ApiKeys:
    """Each looks its key up when it is called: one that is given later is taken up. Raise ConfigError."""

    network: Callable[[], str]
    """Joins the Blocks Network."""
    sessions: Callable[[], str]
    """For delegations."""


def child_environment() -> dict[str, str]:
    """For a child that needs to know neither the keys nor the service manager."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_WITHHELD)}


def api_key(
    network: NetworkConfig, folder: Path | None = None, *, environ: Mapping[str, str] = os.environ
) -> str:
    """The key: the systemd credential `blocks_api_key`, else $BLOCKS_API_KEY, else `network.api_key_file`.

    Without the last, `api_key` in `folder`, the configuration's. Raises ConfigError where there is none,
    where it cannot be a key, or where others may read its file; NotReady where the file cannot be read.
    """
    place, file = "network.api_key_file", network.api_key_file
    if file is None and folder is not None:
        place, file = "", folder / KEY_FILE
    return _key(CREDENTIAL, VARIABLE, place, file, environ)


def sessions_key(
    delegation: DelegationConfig, folder: Path | None = None, *, environ: Mapping[str, str] = os.environ
) -> str:
    """The key of the Sessions API, from places of its own: it is another service and another key.

    Raises ConfigError as `api_key` does. $BLOCKS_API_KEY is not taken: it would go to another host.
    """
    place, file = "delegation.api_key_file", delegation.api_key_file
    if file is None and folder is not None:
        place, file = "", folder / SESSIONS_KEY_FILE
    return _key(SESSIONS_CREDENTIAL, SESSIONS_VARIABLE, place, file, environ)


def _key(credential: str, variable: str, place: str, file: Path | None, environ: Mapping[str, str]) -> str:
    """`place` is the key of the configuration that names `file`; empty for the file beside it."""
    if folder := environ.get("CREDENTIALS_DIRECTORY"):
        path = Path(folder) / credential
        # Empty, or a line end, is the unit's default for a key that has not been given yet.
        if path.exists() and (given := _read(path)):
            return _checked(given, f"the systemd credential {credential}")
    if value := environ.get(variable, "").strip():
        return _checked(value, f"${variable}")
    if file is not None and (place or file.exists()):
        named = f"{place} = {file}" if place else str(file)
        return _checked(_read(file, private=named), named)
    what = "no API key" if variable == VARIABLE else "no key of the Sessions API for [delegations]"
    how = f"write it to {file}, mode 600, for the daemon's user" if file else "give it in one of these"
    raise ConfigError(
        f"{what} (looked for the systemd credential {credential}, ${variable}, "
        f"{file or place or 'network.api_key_file'}): {how}"
    )


def _read(path: Path, *, private: str = "") -> str:
    """`private` names the file where no other may use it."""
    try:
        with path.open("rb") as file:
            if private and (why := open_to_others(path, file.fileno())):
                raise ConfigError(f"{private} {why}")
            return file.read(_FILE_MAX_BYTES + 1).decode("ascii", "replace").strip()
    except OSError as error:
        raise NotReady(
            f"the API key's file {path} cannot be read ({error.strerror}): make it, or let this user read it"
        ) from error


def _checked(key: str, source: str) -> str:
    if _KEY.fullmatch(key) is None:
        raise ConfigError(f"{source} does not hold an API key: one line of printable characters is expected")
    return key
