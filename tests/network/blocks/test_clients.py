"""PubSub clients, and the two tokens that may serve a task."""

from pathlib import Path

import pytest

from device_agent.errors import ProtocolFault
from device_agent.network.blocks.clients import Clients, TaskClients
from device_agent.network.blocks.http import Http
from device_agent.network.blocks.identity import IdentityFile
from device_agent.network.blocks.joiner import JoinSettings
from device_agent.network.connectivity import Connectivity
from device_agent.testing.clock import SteppedClock
from support.fake_pubsub import FakePubSub

pytestmark = pytest.mark.filterwarnings("ignore:Mutable config:DeprecationWarning")


@pytest.fixture
def file(tmp_path: Path) -> IdentityFile:
    made = IdentityFile(tmp_path / "identity.json", "x")
    made.identity.publish_key, made.identity.subscribe_key = "pub-1", "sub-1"
    made.identity.network_keys = ["pub-2", "sub-2"]
    return made


@pytest.fixture
def clients(file: IdentityFile, connectivity: Connectivity, clock: SteppedClock) -> Clients:
    settings = JoinSettings("x", lambda: "bk_x", pubnub_origin="127.0.0.1:1", pubnub_tls=False)
    return Clients(settings, Http(connectivity), file, clock)


def address(clients: Clients) -> str:
    return clients.control.file_url("c", "f", "n")


def test_the_control_client_is_made_with_the_first_token_and_kept(clients: Clients, file: IdentityFile):
    assert not clients.ready
    clients.use_control_token("one")
    control = clients.control
    clients.use_control_token("two")
    assert clients.control is control
    assert (control.token, file.identity.control_token) == ("two", "two")
    assert control.uuid == file.identity.instance_id


def test_another_environment_has_other_keys_and_is_remembered(
    clients: Clients, file: IdentityFile, tmp_path: Path
):
    clients.use_control_token("one")
    assert "/files/sub-1/" in address(clients)
    clients.switch("network", "two")
    assert "/files/sub-2/" in address(clients)
    again = IdentityFile(tmp_path / "identity.json", "x").identity
    assert (again.environment, again.control_token, again.subscribe_key) == ("network", "two", "sub-2")


def test_an_environment_whose_keys_are_not_known_is_refused(clients: Clients, file: IdentityFile):
    clients.use_control_token("one")
    with pytest.raises(ProtocolFault):
        clients.switch("playground", "two")
    assert file.identity.control_token == "one"


@pytest.fixture
def ends(clients: Clients, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """When tokens end, epoch milliseconds; others do not say."""
    clients.use_control_token("ours")
    made: dict[str, int] = {}
    monkeypatch.setattr("device_agent.network.blocks.clients.expires_ms", made.get)
    return made


@pytest.mark.parametrize(
    ("known", "newer"),
    [
        ({"ours": 5, "theirs": 6}, True),
        ({"ours": 5, "theirs": 5}, False),
        ({"ours": 5, "theirs": 4}, False),
        ({"ours": 5}, True),
        ({"theirs": 5}, True),
    ],
)
def test_whether_a_token_outlives_ours(
    clients: Clients, ends: dict[str, int], known: dict[str, int], newer: bool
):
    ends.update(known)
    assert clients.outlives_control_token("theirs") is newer


def test_the_life_of_a_token_is_by_the_network_s_clock(
    clients: Clients, ends: dict[str, int], clock: SteppedClock, connectivity: Connectivity
):
    assert clients.control_token_life_s() is None, "it does not say when it ends"
    ends["ours"] = clock.now_ms() + 60_000
    assert clients.control_token_life_s() == 60.0
    connectivity.time_sample(clock.now_ms() + 20_000, clock.monotonic_s(), clock.monotonic_s())
    assert clients.control_token_life_s() == pytest.approx(40.0)


def test_the_life_of_a_token_is_unknown_without_a_clock(
    clients: Clients, ends: dict[str, int], clock: SteppedClock
):
    clock.knows = False
    clock.set_wall(0)
    ends["ours"] = 1_900_000_000_000
    assert clients.control_token_life_s() is None


def test_a_refused_token_is_replaced_by_the_other_and_never_given_up():
    own, control = FakePubSub("own"), FakePubSub("control")
    clients = TaskClients(own, control)  # type: ignore[arg-type]
    clients.refused(own)  # type: ignore[arg-type]
    assert clients.current is control
    clients.refused(own)  # type: ignore[arg-type]
    assert clients.current is control, "another request was refused the same token"
    clients.refused(control)  # type: ignore[arg-type]
    assert clients.current is own
