"""The network's API key, from its three places. It is never in the configuration, a log or a message."""

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from device_agent.config.models import NetworkConfig
from device_agent.errors import ConfigError

CREDENTIAL = "blocks_api_key"
VARIABLE = "BLOCKS_API_KEY"

_KEY = re.compile(r"[\x21-\x7e]{1,512}")
_FILE_MAX_BYTES = 4096


def api_key(network: NetworkConfig, *, environ: Mapping[str, str] = os.environ) -> str:
    """The key: the systemd credential `blocks_api_key`, else $BLOCKS_API_KEY, else `network.api_key_file`.

    Raises ConfigError where there is none, where it cannot be a key, or where others may read its file.
    """
    if folder := environ.get("CREDENTIALS_DIRECTORY"):
        credential = Path(folder) / CREDENTIAL
        if credential.exists():
            return _checked(_read(credential), f"the systemd credential {CREDENTIAL}")
    if value := environ.get(VARIABLE, "").strip():
        return _checked(value, f"${VARIABLE}")
    if network.api_key_file is not None:
        return _checked(
            _read(network.api_key_file, private=True), f"network.api_key_file = {network.api_key_file}"
        )
    raise ConfigError(
        f"there is no API key: give the systemd credential {CREDENTIAL}, ${VARIABLE} or network.api_key_file"
    )


def _read(path: Path, *, private: bool = False) -> str:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if private and status.st_mode & 0o077:
                raise ConfigError(
                    f"network.api_key_file = {path} may be used by others than its owner "
                    f"(mode {stat.S_IMODE(status.st_mode):04o}): run chmod 600 {path}"
                )
            return file.read(_FILE_MAX_BYTES + 1).decode("ascii", "replace").strip()
    except OSError as error:
        raise ConfigError(
            f"the API key's file {path} cannot be read ({error.strerror}): make it, or let this user read it"
        ) from error


def _checked(key: str, source: str) -> str:
    if _KEY.fullmatch(key) is None:
        raise ConfigError(f"{source} does not hold an API key: one line of printable characters is expected")
    return key
