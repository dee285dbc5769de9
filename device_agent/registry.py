"""Installed drivers by name, through the entry point group `device_agent.drivers`.

Listing imports nothing; loading imports one driver's module, so that a broken package affects no other.
"""

import difflib
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, get_args

from device_agent.errors import ConfigError

if TYPE_CHECKING:
    from device_agent.driver import Driver

GROUP = "device_agent.drivers"


def names() -> list[str]:
    """The installed drivers' names, sorted. Imports none of them."""
    return sorted({entry.name for entry in entry_points(group=GROUP)})


def origin(name: str) -> str:
    """The distribution that provides a driver, such as "device-agent 0.1.0"; "" if unknown."""
    for entry in entry_points(group=GROUP, name=name):
        return _package(entry)
    return ""


def load(name: str) -> "type[Driver[Any, Any]]":
    """The driver of this name; imports its module and no other.

    Raises ConfigError: no such driver, two packages that claim the name, or a package that is broken.
    """
    found = list(entry_points(group=GROUP, name=name))
    if not found:
        raise ConfigError(_unknown(name))
    if len({entry.value for entry in found}) > 1:
        packages = " and ".join(f"{_package(entry)} ({entry.value})" for entry in found)
        raise ConfigError(f'driver "{name}" is claimed by {packages}: uninstall one of them')
    entry = found[0]
    try:
        driver = entry.load()
    except (Exception, SystemExit) as error:  # a foreign module may raise anything
        cause = " ".join(str(error).split())
        raise ConfigError(
            f'driver "{name}" of {_package(entry)} cannot be loaded ({type(error).__name__}: {cause}): '
            "repair or uninstall that package"
        ) from error
    _require_driver(name, entry, driver)
    return driver  # type: ignore[no-any-return]


def nearest(word: str, known: list[str]) -> str:
    """The known word most like this one, or ""."""
    close = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    return close[0] if close else ""


def _unknown(name: str) -> str:
    known = names()
    if not known:
        return f'driver "{name}" is not installed, and no other is: install device-agent again'
    guess = nearest(name, known)
    hint = f'did you mean "{guess}"? ' if guess else ""
    return f'driver "{name}" is not installed: {hint}Installed are {", ".join(known)}'


def _package(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else entry.module


def _require_driver(name: str, entry: EntryPoint, driver: object) -> None:
    from device_agent.driver import Driver

    if not (isinstance(driver, type) and issubclass(driver, Driver)):
        raise ConfigError(
            f'driver "{name}" of {_package(entry)}: {entry.value} is not a class derived from '
            "device_agent.driver.Driver; tell its author"
        )
    declared = driver.Config.model_fields.get("driver")
    if declared is not None and name not in get_args(declared.annotation):
        raise ConfigError(
            f'driver "{name}" of {_package(entry)}: the field "driver" of {driver.Config.__name__} does not '
            f'allow "{name}"; tell its author'
        )
