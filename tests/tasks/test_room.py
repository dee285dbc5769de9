"""Whose tasks find room beside how many others: readers keep out no driver, and a stop always comes in."""

from dataclasses import replace
from typing import Any

import pytest

from device_agent.commands.authorization import Actor
from device_agent.config import Config
from device_agent.config.access import AccessConfig
from device_agent.network import Caller
from device_agent.tasks.room import STOPS_MAX, UNLIMITED, declared, has_room
from device_agent.tasks.services import Services
from support.fake_task_link import start_of

DRIVER, READER, OTHER = Caller("org", "alice"), Caller("org", "mallory"), Caller("org", "eve")
STOP = {"op": "stop"}


@pytest.fixture
def config(services: Services) -> Config:
    return replace(services.config, access=AccessConfig(drive=("user:alice",)))


def limited(config: Config, places: int) -> Config:
    return replace(config, agent=config.agent.model_copy(update={"concurrency": places}))


def running(*callers: Caller) -> list[Actor]:
    return [Actor(f"task:{n}", "session", caller, "pipe") for n, caller in enumerate(callers)]


def fits(
    config: Config, caller: Caller, others: list[Actor], kind: str = "pipe", request: Any = None
) -> bool:
    return has_room(config, ["valve"], start_of("t", kind, request, caller=caller), others)


@pytest.mark.parametrize(
    ("others", "caller", "fits_in"),
    [
        ([READER] * 3, READER, True),
        ([READER] * 4, READER, False),
        ([READER] * 4, OTHER, True),
        ([READER] * 4 + [OTHER] * 2, OTHER, False),
        ([READER] * 4 + [OTHER] * 2, DRIVER, True),
        ([DRIVER] * 7, DRIVER, True),
        ([DRIVER] * 7, READER, True),
        ([DRIVER] * 8, DRIVER, False),
        ([READER] * 8, DRIVER, False),
    ],
)
def test_readers_leave_room_for_drivers(
    config: Config, others: list[Caller], caller: Caller, fits_in: bool
) -> None:
    assert fits(limited(config, 8), caller, running(*others)) is fits_in


def test_where_nobody_drives_all_places_are_for_readers(config: Config) -> None:
    nobody = replace(limited(config, 8), access=AccessConfig())
    assert fits(nobody, READER, running(*[READER] * 7))


@pytest.mark.parametrize("places", [1, 2, 3])
def test_a_few_places_are_not_divided(config: Config, places: int) -> None:
    assert fits(limited(config, places), READER, running(*[READER] * (places - 1)))
    assert not fits(limited(config, places), READER, running(*[READER] * places))


def test_without_a_limit_readers_have_one_all_the_same(config: Config) -> None:
    many = running(*[READER] * (UNLIMITED // 2))
    assert not fits(limited(config, 0), READER, many)
    assert fits(limited(config, 0), DRIVER, many * 3)


def test_a_stop_of_who_may_drive_needs_no_room(config: Config) -> None:
    one = limited(config, 1)
    assert fits(one, DRIVER, running(READER), "request", STOP)
    assert not fits(one, READER, running(READER), "request", STOP)
    assert not fits(one, DRIVER, running(READER), "request", {"op": "read"})
    assert not fits(one, DRIVER, running(READER), "request", "{")
    assert not fits(one, DRIVER, running(*[READER] * (1 + STOPS_MAX)), "request", STOP)


def test_without_requests_who_may_drive_has_room_for_a_session(config: Config) -> None:
    agent = config.agent.model_copy(update={"concurrency": 1, "task_kinds": ("pipe",)})
    alone = replace(config, agent=agent)
    assert fits(alone, DRIVER, running(READER))
    assert not fits(alone, READER, running(OTHER))
    assert not fits(alone, DRIVER, running(DRIVER)), "this session can stop"
    assert not fits(alone, DRIVER, running(*[READER] * (1 + STOPS_MAX)))


def test_the_network_is_told_of_the_places_for_stops_too(config: Config) -> None:
    assert declared(limited(config, 8), ["valve"]) == 8 + STOPS_MAX
    assert declared(limited(config, 0), ["valve"]) == 0
    nobody = replace(limited(config, 8), access=AccessConfig())
    assert declared(nobody, ["valve"]) == 8
