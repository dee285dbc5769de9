"""Who may drive: leases begin, are prolonged, run out, yield and end."""

import pytest

from device_agent.errors import Rejected
from device_agent.safety.leases import Leases

IDLE_S = 60.0


@pytest.fixture
def leases() -> Leases:
    """Alice has driven the valve at 100 s; by the owner's list she comes second."""
    leases = Leases(IDLE_S)
    leases.take("valve", "alice", "session alice", 100.0, rank=1)
    return leases


def test_others_are_refused_and_see_who_and_how_long(leases: Leases) -> None:
    with pytest.raises(Rejected) as refused:
        leases.check("valve", "bob", 130.0)
    assert refused.value.code == "leased"
    assert refused.value.message == (
        "valve is driven by session alice; free when that session ends, or in 30 s without a command from it"
    )


def test_its_holder_and_other_devices_are_free(leases: Leases) -> None:
    leases.check("valve", "alice", 130.0)
    leases.check("heater", "bob", 130.0)


def test_it_runs_out_when_it_is_not_used(leases: Leases) -> None:
    assert leases.holder("valve", 100.0 + IDLE_S - 0.001) is not None
    leases.take("valve", "alice", "session alice", 150.0, rank=1)
    assert leases.holder("valve", 150.0 + IDLE_S - 0.001) is not None, "a command prolongs it"
    assert leases.holder("valve", 150.0 + IDLE_S) is None
    leases.check("valve", "bob", 150.0 + IDLE_S)


@pytest.mark.parametrize(
    ("holder", "rank", "at_s", "yields"),
    [
        ("bob", 0, 130.0, True),
        ("bob", 1, 130.0, False),
        ("bob", 2, 130.0, False),
        ("alice", 0, 130.0, False),
        ("bob", 0, 160.0, False),
    ],
)
def test_it_yields_to_a_better_rank_of_somebody_else(
    leases: Leases, holder: str, rank: int, at_s: float, yields: bool
) -> None:
    assert leases.yields_to("valve", holder, rank, at_s) is yields
    assert leases.yields_to("heater", holder, rank, at_s) is False


def test_a_holder_gives_up_one_device_or_all(leases: Leases) -> None:
    leases.take("heater", "alice", "session alice", 100.0)
    leases.take("fan", "bob", "session bob", 100.0)
    assert leases.release("alice", "heater") == ["heater"]
    assert leases.release("alice", "fan") == []
    leases.take("heater", "alice", "session alice", 100.0)
    assert sorted(leases.release("alice")) == ["heater", "valve"]
    assert leases.holder("fan", 100.0) is not None
    leases.clear()
    assert leases.holder("fan", 100.0) is None
