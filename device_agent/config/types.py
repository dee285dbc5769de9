"""Kinds of value that the configuration's tables share: names, sizes, paths, callers."""

import re
from pathlib import Path
from typing import Annotated, Any

from device_agent.schema import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

WORD = r"^[a-z][a-z0-9_]*$"
"""A lower-case word: names of devices, buses, streams, points and interlock groups."""

NAME_MAX = 63

_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_SIZE = re.compile(rf"(\d{{1,12}}(?:\.\d{{1,6}})?) ?({'|'.join(_UNITS)})")


class Table(BaseModel):
    """A table of the configuration: unknown keys are errors, nothing is converted in silence."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def parse_size(value: Any) -> Any:
    """Bytes from "32 MB", "256 kB" or "1 MiB"; a whole number is bytes already."""
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise ValueError('must be a size such as "32 MB" or "256 kB"')
    return round(float(match[1]) * _UNITS[match[2]])


def format_size(size_bytes: int) -> str:
    """The shortest exact spelling in decimal units: 256000 is "256 kB"."""
    for unit in ("GB", "MB", "kB"):
        if size_bytes >= _UNITS[unit] and size_bytes % _UNITS[unit] == 0:
            return f"{size_bytes // _UNITS[unit]} {unit}"
    return f"{size_bytes} B"


def _resolve(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, str):
        return value
    if not value or "\0" in value:
        raise ValueError("must be a path")
    base = (info.context or {}).get("base", Path("/"))
    try:
        return base / Path(value).expanduser()
    except RuntimeError:
        raise ValueError("begins with the home of a user who has none") from None


def _callers(value: Any) -> Any:
    if value == "anyone":
        return ("anyone",)
    if isinstance(value, str):
        raise ValueError('must be "anyone" or a list such as ["org:org_123", "user:user_9"]')
    return value


SizeBytes = Annotated[int, BeforeValidator(parse_size)]
"""A number of bytes, written "32 MB" or as a whole number."""

LocalPath = Annotated[Path, BeforeValidator(_resolve)]
"""A path; a relative one starts in the folder of the configuration file, `~` in the user's home."""

Caller = Annotated[
    str,
    Field(
        pattern=r"^(anyone|(org|user|delegation|rule):[^\s:]\S*|local:(page|mqtt|mcp)(/\S+)?)$",
        max_length=256,
    ),
]

Callers = Annotated[tuple[Caller, ...], BeforeValidator(_callers), Field(max_length=256, strict=False)]
"""Who may: "anyone", or a list of "org:…", "user:…", "delegation:…", "rule:…", "local:…"; nobody if empty."""
