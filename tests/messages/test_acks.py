"""Acks at the edges: members in their order, and back again."""

import msgpack
import pytest

from device_agent.errors import Fault, Rejected
from device_agent.messages import events
from device_agent.messages.acks import Ack, AckState

LATE = Fault("expired", "came 10 ms after its ttl_ms of 5 had run out")


@pytest.mark.parametrize(
    ("ack", "members"),
    [
        (Ack("a"), {"id": "a", "state": "done", "verified": False}),
        (
            Ack("a", commanded={"on": True}, applied={"on": True}, repeated=True),
            {
                "id": "a",
                "state": "done",
                "commanded": {"on": True},
                "applied": {"on": True},
                "repeated": True,
            },
        ),
        (
            Ack("a", AckState.REJECTED, error=LATE, dry_run=True),
            {"id": "a", "state": "rejected", "error": LATE.members(), "dry_run": True},
        ),
        (
            Ack("a", AckState.UNKNOWN, commanded={}, error=LATE),
            {"id": "a", "state": "unknown", "commanded": {}, "error": LATE.members()},
        ),
        (
            Ack("a", commanded={"level": None}, hand_over=False, dry_run=True),
            {
                "id": "a",
                "state": "done",
                "commanded": {"level": None},
                "verified": False,
                "hand_over": False,
                "dry_run": True,
            },
        ),
    ],
)
def test_members_are_in_order_and_make_the_same_ack(ack: Ack, members: dict[str, object]) -> None:
    assert list(ack.members().items()) == list(members.items())
    stored = msgpack.unpackb(msgpack.packb(ack.members()))
    assert Ack.from_members(stored) == ack


def test_an_event_adds_its_time_before_and_nothing_else() -> None:
    draft = events.ack(1_800_000_000_000, Ack("ä", AckState.FAILED, error=Fault("internal", "no")))
    assert draft.numbered(7).decode() == (
        '{"kind":"ack","at":1800000000000,"seq":7,"id":"ä","state":"failed",'
        '"error":{"code":"internal","message":"no"}}'
    )


@pytest.mark.parametrize(
    ("stored", "error"), [({"id": "a"}, KeyError), ({"id": "a", "state": "maybe"}, ValueError)]
)
def test_what_is_no_ack_is_refused(stored: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        Ack.from_members(stored)


def test_a_rejection_gives_its_fault() -> None:
    assert Rejected("leased", "driven by somebody else").fault == Fault("leased", "driven by somebody else")


def test_a_fault_of_another_process_may_lack_members() -> None:
    assert Fault.from_members({}) == Fault("internal", "no reason given")


def test_a_repetition_is_never_freshly_verified() -> None:
    again = Ack("x a", applied={"on": True}, verified=True).again("a").members()
    assert again == {"id": "a", "state": "done", "applied": {"on": True}, "repeated": True}
