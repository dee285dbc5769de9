"""What limits know after a restart: transitions of this boot and of earlier ones, and what is deleted."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from device_agent.store.journal import safe_transitions
from device_agent.store.journal.safe_transitions import KEEP_S, SafeTransition
from device_agent.store.row_checksums import prepare


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as made:
        prepare(made, safe_transitions.SCHEMA, {})
        yield made


def note(db: sqlite3.Connection, boot: str, some: list[SafeTransition]) -> None:
    with db:
        for one in some:
            db.execute(*safe_transitions.note_sql(boot, one))


def test_transitions_of_this_boot_keep_their_instants_and_order(db: sqlite3.Connection) -> None:
    some = [
        SafeTransition("pump", "on", 5.5, away=True),
        SafeTransition("valve", "on", 6.0, away=True),
        SafeTransition("pump", "on", 7.25, away=False),
    ]
    note(db, "boot", some[:1])
    note(db, "boot", some[1:])
    assert safe_transitions.load(db, "boot") == some


def test_an_earlier_boot_counts_as_the_moment_of_this_one(db: sqlite3.Connection) -> None:
    note(db, "before", [SafeTransition("pump", "on", 99_999.0, away=True)])
    note(db, "now", [SafeTransition("pump", "on", 3.0, away=False)])
    assert safe_transitions.load(db, "now") == [
        SafeTransition("pump", "on", 0.0, away=True),
        SafeTransition("pump", "on", 3.0, away=False),
    ]


def test_what_is_too_old_is_deleted_but_the_last_of_each_point(db: sqlite3.Connection) -> None:
    note(
        db,
        "boot",
        [
            SafeTransition("pump", "on", 1.0, away=True),
            SafeTransition("pump", "on", 2.0, away=False),
            SafeTransition("valve", "on", 3.0, away=True),
            SafeTransition("pump", "speed", KEEP_S, away=True),
        ],
    )
    safe_transitions.trim(db, "boot", KEEP_S + 10)
    assert [one[:3] for one in safe_transitions.load(db, "boot")] == [
        ("pump", "on", 2.0),
        ("valve", "on", 3.0),
        ("pump", "speed", KEEP_S),
    ]


def test_a_transition_is_kept_for_the_whole_hour(db: sqlite3.Connection) -> None:
    some = [SafeTransition("pump", "on", at_s, away=at_s < 11) for at_s in (10.0, 11.0, 12.0)]
    note(db, "boot", some)
    safe_transitions.trim(db, "boot", 10.0 + KEEP_S)
    assert safe_transitions.load(db, "boot") == some
    safe_transitions.trim(db, "boot", 10.5 + KEEP_S)
    assert safe_transitions.load(db, "boot") == some[1:]


def test_those_of_an_earlier_boot_are_deleted_an_hour_after_this_one(db: sqlite3.Connection) -> None:
    earlier = [SafeTransition("pump", "on", 5e6, away=True), SafeTransition("pump", "on", 6e6, away=False)]
    note(db, "before", earlier)
    safe_transitions.trim(db, "now", KEEP_S)
    assert len(safe_transitions.load(db, "now")) == 2
    safe_transitions.trim(db, "now", KEEP_S + 1)
    assert safe_transitions.load(db, "now") == [SafeTransition("pump", "on", 0.0, away=False)]
