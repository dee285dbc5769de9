"""The link dies while a relay is on: it goes safe by itself, and says so when the link is back."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from scene import GRACE_S, Scene

from support.waiting import SLOWNESS

# A daemon that does its work at once, on a machine that does much else besides.
PATIENCE_S = 5.0 * SLOWNESS
# A link that was silent is in use again at the latest after this.
BACK_S = 40.0 * SLOWNESS


def cut(scene: Scene, how: str) -> Callable[[], Any]:
    """Cuts the daemon's own link; what heals it."""
    host = scene.world.net
    if how == "refused":
        host.run(host.net.refuse(scene.link))
        return lambda: host.run(host.net.accept(scene.link))
    fault = host.call(host.net.add_fault, "blackhole", link=scene.link)
    return lambda: host.call(host.net.heal, fault.fault_id)


def dies(scene: Scene, how: str) -> Callable[[], Any]:
    """The link dies while the relay is on, and the relay goes safe in time; what heals the link."""
    assert scene.switch(True, "on")["state"] == "done"
    assert scene.rig.relay_on()
    cut_s = time.monotonic()
    heal = cut(scene, how)
    scene.until(lambda: not scene.rig.relay_on(), "the relay at its safe level")
    off_s = scene.rig.relay_record()[-1].t_s
    assert off_s - cut_s < GRACE_S + PATIENCE_S
    return heal


def test_the_relay_goes_safe_when_nothing_answers(begin: Callable[..., Scene]) -> None:
    scene = begin("relay")
    heal = dies(scene, "silent")
    # How long it takes to notice that a silent link is back is the next test's matter, and takes its time.
    scene.daemon.stop()
    heal()
    scene.session.cancel()


@pytest.mark.parametrize("how", ["refused", pytest.param("silent", marks=pytest.mark.soak)])
def test_the_session_goes_on(begin: Callable[..., Scene], how: str) -> None:
    scene = begin("relay")
    heal = dies(scene, how)
    mark = scene.mark
    heal()
    off = {"device": "relay", "values": {"on": False}}
    scene.until(lambda: scene.after(mark, "reading", **off), "the reading: the relay is off")
    assert not scene.rig.relay_on(), "it was switched on again by what came before"
    # What the caller sends before the daemon listens again comes too late, and then nothing moves.
    acks = commanded_until_done(scene)
    assert all(ack["error"]["code"] == "expired" for ack in acks[:-1])
    assert [change.level for change in scene.rig.relay_record()][-2:] == [True, False]
    scene.end()
    scene.until(lambda: not scene.rig.relay_on(), "the relay safe after the session")


def commanded_until_done(scene: Scene) -> list[dict[str, Any]]:
    """A caller who does not give up; the acks that he got."""
    acks: list[dict[str, Any]] = []
    deadline_s = time.monotonic() + BACK_S
    while not acks or acks[-1]["state"] != "done":
        assert time.monotonic() < deadline_s, f"not back within {BACK_S:g} s: {acks}"
        acks.append(scene.switch(True, f"again {len(acks)}"))
    return acks


def test_an_outage_within_the_grace_changes_nothing(begin: Callable[..., Scene]) -> None:
    scene = begin("relay")
    assert scene.switch(True, "on")["state"] == "done"
    moved = len(scene.rig.relay_record())
    cut(scene, "refused")()
    assert scene.switch(True, "still")["state"] == "done"
    assert scene.rig.relay_on()
    assert all(not change.level for change in scene.rig.relay_record()[moved:]), "it was switched off"
    scene.end()
