"""The API keys, each from one of three places. They are never in the configuration, a log or a message."""

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from device_agent.config.delegation import DelegationConfig
from device_agent.config.models import NetworkConfig
from device_agent.errors import ConfigError, NotReady

CREDENTIAL = "blocks_api_key"
VARIABLE = "BLOCKS_API_KEY"
SESSIONS_CREDENTIAL = "blocks_sessions_api_key"
SESSIONS_VARIABLE = "BLOCKS_SESSIONS_API_KEY"

_KEY = re.compile(r"[\x21-\x7e]{1,512}")
_FILE_MAX_BYTES = 4096


@dataclass(frozen=True, slots=True)
class ApiKeys:
    """`network` joins the Blocks Network; `sessions` is for delegations, empty without them."""

    network: str = field(repr=False)
    sessions: str = field(default="", repr=False)


def api_key(network: NetworkConfig, *, environ: Mapping[str, str] = os.environ) -> str:
    """The key: the systemd credential `blocks_api_key`, else $BLOCKS_API_KEY, else `network.api_key_file`.

    Raises ConfigError where there is none, where it cannot be a key, or where others may read its file;
    NotReady where the file cannot be read.
    """
    return _key(CREDENTIAL, VARIABLE, "network.api_key_file", network.api_key_file, environ)


def sessions_key(delegation: DelegationConfig, *, environ: Mapping[str, str] = os.environ) -> str:
    """The key of the Sessions API, from places of its own: it is another service and another key.

    Raises ConfigError as `api_key` does. $BLOCKS_API_KEY is not taken: it would go to another host.
    """
    place = "delegation.api_key_file"
    return _key(SESSIONS_CREDENTIAL, SESSIONS_VARIABLE, place, delegation.api_key_file, environ)


def _key(credential: str, variable: str, place: str, file: Path | None, environ: Mapping[str, str]) -> str:
    if folder := environ.get("CREDENTIALS_DIRECTORY"):
        path = Path(folder) / credential
        if path.exists():
            return _checked(_read(path), f"the systemd credential {credential}")
    if value := environ.get(variable, "").strip():
        return _checked(value, f"${variable}")
    if file is not None:
        # What systemd gives is mode 0440: group bits are the mask of an ACL that lets the service in.
        given = Path(environ.get("CREDENTIALS_DIRECTORY") or "/run/credentials")
        private = "" if file.is_relative_to(given) else place
        return _checked(_read(file, private=private), f"{place} = {file}")
    service = "API key" if variable == VARIABLE else "key of the Sessions API for [delegations]"
    raise ConfigError(
        f"there is no {service}: give the systemd credential {credential}, ${variable} or {place}"
    )


def _read(path: Path, *, private: str = "") -> str:
    """`private` is the key of the configuration that names the file; then no other may use it."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if private and status.st_mode & 0o077:
                raise ConfigError(
                    f"{private} = {path} may be used by others than its owner "
                    f"(mode {stat.S_IMODE(status.st_mode):04o}): run chmod 600 {path}"
                )
            return file.read(_FILE_MAX_BYTES + 1).decode("ascii", "replace").strip()
    except OSError as error:
        raise NotReady(
            f"the API key's file {path} cannot be read ({error.strerror}): make it, or let this user read it"
        ) from error


def _checked(key: str, source: str) -> str:
    if _KEY.fullmatch(key) is None:
        raise ConfigError(f"{source} does not hold an API key: one line of printable characters is expected")
    return key
