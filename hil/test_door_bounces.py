"""A contact that bounces: a change counts once the new level has held for `debounce_s`, and then once."""

import time
from collections.abc import Callable

from rigs import Rig
from scene import DEBOUNCE_S, Scene, held

BOUNCES = 15
SLAMS = 4
# A machine that pauses in the middle of a slam makes it another one, which proves nothing; then once more.
TRIES = 12


def slam(rig: Rig, active: bool) -> None:
    """Much back and forth, each for a small part of the time that counts; then it stays."""
    for _ in range(BOUNCES):
        rig.door(active)
        time.sleep(DEBOUNCE_S / 20)
        rig.door(not active)
        time.sleep(DEBOUNCE_S / 40)
    rig.door(active)


def seen(scene: Scene) -> list[bool]:
    """The levels that the caller received."""
    return [event["values"]["active"] for event in scene.of("reading", device="door")]


def test_one_edge_for_one_movement(begin: Callable[..., Scene]) -> None:
    scene = begin("door")
    scene.wait("reading", device="door", values={"active": False})
    proven, active = 0, False
    for _ in range(TRIES):
        moved, known = len(scene.rig.door_record()), len(seen(scene))
        before, active = active, not active
        slam(scene.rig, active)
        scene.until(lambda known=known, active=active: seen(scene)[known:][-1:] == [active], "the last level")
        record = scene.rig.door_record()[moved:]
        assert len(record) == 2 * BOUNCES + 1
        wanted = held(record, DEBOUNCE_S, before)
        if wanted is not None:
            assert seen(scene)[known:] == wanted
            proven += 1
        if proven >= SLAMS and not active:
            break
    assert proven >= SLAMS, f"this machine is too busy: {TRIES} slams, {proven} without a pause"
    scene.end()


def test_what_does_not_hold_is_nothing(begin: Callable[..., Scene]) -> None:
    scene = begin("door")
    scene.wait("reading", device="door", values={"active": False})
    for _ in range(TRIES):
        moved, known = len(scene.rig.door_record()), len(seen(scene))
        for _ in range(BOUNCES):
            scene.rig.door(True)
            scene.rig.door(False)
            time.sleep(DEBOUNCE_S / 10)
        # A movement that counts is the proof that nothing is still on its way.
        time.sleep(2 * DEBOUNCE_S)
        scene.rig.door(True)
        scene.until(lambda known=known: seen(scene)[known:][-1:] == [True], "the movement")
        wanted = held(scene.rig.door_record()[moved:], DEBOUNCE_S, False)
        if wanted is not None:
            assert seen(scene)[known:] == wanted
        time.sleep(2 * DEBOUNCE_S)
        scene.rig.door(False)
        scene.until(lambda: seen(scene)[-1] is False, "the movement back")
        if wanted == [True]:
            break
    else:
        raise AssertionError(f"this machine is too busy: {TRIES} tries, and each was held for too long")
    scene.end()
