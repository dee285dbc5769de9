"""Losses: as few as will do, what a lost gap passes on, and their true times."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.clock import EARLIEST_TRUE_MS
from device_agent.messages import events
from device_agent.records import Reading
from device_agent.store.outbox.event import REPEATED, Event
from device_agent.store.outbox.loss import Loss, losses_in, losses_of, merged

OFFSET_MS = EARLIEST_TRUE_MS
AT_MS = EARLIEST_TRUE_MS


def reading(seq: int, at_ms: int) -> Event:
    draft = events.reading(Reading("d", at_ms, {"v": 1.0}, clock_set=at_ms >= EARLIEST_TRUE_MS), "boot")
    if at_ms < EARLIEST_TRUE_MS:
        draft = draft.undated("boot")
    return Event(seq, draft.numbered(seq), seq, at_ms, "reading", "d", 0.0)


def gap(seq: int, count: int, from_seq: int, to_seq: int, from_at: int, to_at: int) -> Event:
    draft = events.gap(
        EARLIEST_TRUE_MS,
        "overflow",
        count=count,
        from_seq=from_seq,
        to_seq=to_seq,
        from_at=from_at,
        to_at=to_at,
    )
    return Event(seq, draft.numbered(seq), seq, EARLIEST_TRUE_MS, "gap", "", 0.0)


def test_only_adjacent_numbers_are_told_together() -> None:
    some = [reading(n, AT_MS + n) for n in (3, 4, 5, 9, 11, 12)]
    assert losses_of(some, "overflow", "boot", None) == [
        Loss("overflow", 3, AT_MS + 3, AT_MS + 5, 3, 5),
        Loss("overflow", 1, AT_MS + 9, AT_MS + 9, 9, 9),
        Loss("overflow", 2, AT_MS + 11, AT_MS + 12, 11, 12),
    ]


@given(
    st.lists(
        st.tuples(st.integers(1, 60), st.sampled_from(["overflow", "thinned"])), unique_by=lambda x: x[0]
    )
)
def test_each_number_is_told_once_in_whatever_order_it_was_lost(lost: list[tuple[int, str]]) -> None:
    losses: list[Loss] = []
    for number, reason in lost:
        losses = merged([*losses, Loss(reason, 1, AT_MS, AT_MS, number, number)])
    told = [
        (number, loss.reason)
        for loss in losses
        for number in range(loss.from_seq or 0, (loss.to_seq or 0) + 1)
    ]
    assert sorted(told) == sorted(lost)
    assert sum(loss.count or 0 for loss in losses) == len(lost)


def test_a_lost_gap_passes_on_what_it_told() -> None:
    lost = gap(9, 5, 1, 5, AT_MS - 1000, AT_MS - 500)
    assert losses_of([lost, reading(10, AT_MS + 7)], "overflow", "boot", None) == [
        Loss("overflow", 5, AT_MS - 1000, AT_MS - 500, 1, 5),
        Loss("overflow", 2, AT_MS, AT_MS + 7, 9, 10),
    ]


def test_what_is_sent_again_and_bytes_are_no_loss() -> None:
    chunk = Event(1, b"login:", None, AT_MS, "bytes", "", 0.0)
    assert losses_of([replace(reading(3, AT_MS), kind=REPEATED), chunk], "overflow", "boot", None) == []


def test_what_had_no_number_is_counted() -> None:
    assert merged([Loss("overflow", 2, 5, 9), Loss("overflow", 1, 3, 3)]) == [Loss("overflow", 3, 3, 9)]


def test_what_nobody_can_count_stays_uncounted() -> None:
    cuts = [Loss("power_cut", None, AT_MS, AT_MS, 5, 20), Loss("power_cut", None, AT_MS, AT_MS, 21, 40)]
    assert merged(cuts) == [Loss("power_cut", None, AT_MS, AT_MS, 5, 40)]


@pytest.mark.parametrize(
    ("from_at", "to_at", "offset_ms", "said"),
    [
        (1000, 3000, None, (1000, 3000)),
        (1000, 3000, OFFSET_MS, (OFFSET_MS + 1000, OFFSET_MS + 3000)),
        (1000, AT_MS + 9, OFFSET_MS, (OFFSET_MS + 1000, AT_MS + 9)),
        (0, 0, OFFSET_MS, (AT_MS + 77, AT_MS + 77)),
    ],
)
def test_losses_get_their_times_when_the_clock_is_set(
    from_at: int, to_at: int, offset_ms: int | None, said: tuple[int, int]
) -> None:
    draft = Loss("overflow", 2, from_at, to_at).draft(AT_MS + 77, offset_ms)
    told = json.loads(draft.numbered(1))
    assert (told["from_at"], told["to_at"]) == said


def test_of_another_boot_an_undated_loss_has_no_time() -> None:
    records = [Loss("overflow", 1, 1000, AT_MS, 3, 3).record()]
    assert losses_in(records, same_boot=True) == [Loss("overflow", 1, 1000, AT_MS, 3, 3)]
    assert losses_in(records, same_boot=False) == [Loss("overflow", 1, 0, AT_MS, 3, 3)]
    assert losses_of([reading(3, 1000)], "overflow", "another", None)[0].from_at == 0
