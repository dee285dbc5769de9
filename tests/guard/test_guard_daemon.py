"""A real daemon dies, hangs, wakes, stops and starts; the board's record says what its guard did."""

import itertools
import signal

import pytest

from support.guarded_daemon import (
    ACTUATORS,
    AWAY,
    LAMP,
    LAMP_SAFE,
    VALVE,
    VALVE_SAFE,
    Question,
    Scene,
    Service,
    alive,
    environment_of,
    kill,
    now_s,
)
from support.waiting import LIMIT_S, until


def test_a_killed_daemon_leaves_everything_safe(scene: Scene) -> None:
    scene.drive()
    guard = scene.guard()
    before = len(scene.levels(VALVE))
    began_s = now_s()
    scene.daemon.kill()
    ended_s = scene.wait_all_safe()
    print(f"killed: all safe {ended_s - began_s:.4f} s later")
    # From on to safe, and at no moment left to itself.
    assert scene.levels(VALVE)[before - 1 :] == [(1 - VALVE_SAFE, "daemon"), (VALVE_SAFE, "guard")]
    assert scene.levels(LAMP)[-2:] == [(1 - LAMP_SAFE, "daemon"), (LAMP_SAFE, "guard")]
    # And it stays so.
    assert alive(guard)
    assert scene.holders(VALVE) == scene.holders(LAMP) == ["guard"]


def test_a_stopped_daemon_is_noticed_and_does_nothing_when_it_wakes(new_scene) -> None:
    scene = new_scene(1.0)
    scene.start()
    scene.drive()
    began_s = now_s()
    scene.freeze()
    ended_s = scene.wait_all_safe()
    print(f"stopped: all safe {ended_s - began_s:.4f} s later, guard_timeout_s = 1")
    assert ended_s - began_s >= 0.7
    late = [Question(scene.folder, op="set", device=name, values=AWAY[name], id=name) for name in ACTUATORS]
    seen = len(scene.levels(VALVE))
    scene.thaw()
    answers = [question.answer() for question in late]
    until(
        lambda: {entry["device"] for entry in scene.journal()} == set(ACTUATORS), "the guard in the Journal"
    )
    assert all(entry["what"] == "safe" for entry in scene.journal())
    # Whatever was allowed came after the daemon had made everything safe itself.
    rejected = [answer for answer in answers if answer["state"] == "rejected"]
    print(f"woken: {len(rejected)} of {len(answers)} commands that waited were refused")
    assert {answer["error"]["code"] for answer in rejected} <= {"too_soon", "device_offline"}
    told = [e["event"] for e in scene.daemon.events() if e.get("device", "valve") == "valve"]
    told = told[told.index("actuators_unknown") :]
    if any(entry == (1 - VALVE_SAFE, "daemon") for entry in scene.levels(VALVE)[seen:]):
        assert told.index("made_safe") < told.index("command")
    # It goes on, and is watched again.
    until(
        lambda: scene.daemon.ask("set", device="valve", values={"on": True})["state"] == "done", "the valve"
    )
    scene.freeze()
    scene.wait_guard(2, bus="pins", line=VALVE)
    scene.thaw()


def test_a_daemon_that_drives_nothing_may_stand_still(new_scene) -> None:
    scene = new_scene(0.2)
    scene.start()
    scene.freeze()
    began_s = now_s()
    until(lambda: now_s() - began_s > 2, "ten times guard_timeout_s")
    scene.thaw()
    assert scene.daemon.ask("status")["guard"]["takeovers"] == 0
    assert scene.by_guard() == []


def test_leases_end_with_a_takeover(new_scene) -> None:
    scene = new_scene(0.5)
    scene.start()
    scene.drive(("valve",))
    scene.freeze()
    scene.wait_guard(bus="pins", line=VALVE)
    scene.thaw()
    until(lambda: scene.daemon.ask("status")["guard"]["takeovers"], "the takeover")
    until(lambda: all(e.get("at_safe", True) for e in scene.daemon.ask("status")["devices"]), "all at safe")


def test_an_orderly_stop_is_the_daemons_own_work(scene: Scene) -> None:
    scene.drive()
    guard = scene.guard()
    assert scene.daemon.stop() == 0
    assert scene.levels(VALVE)[-2:] == [(VALVE_SAFE, "daemon"), (0, "reset")]
    assert scene.by_guard() == []
    until(lambda: not alive(guard), "the end of the guard")
    assert not (scene.folder / "state" / "run" / "guard.sock").exists()


def test_what_a_stopping_daemon_cannot_reach_is_the_guards(scene: Scene) -> None:
    scene.drive(("relays", "valve"))
    scene.fault("i2c1", "stuck")
    assert scene.daemon.stop() == 0
    scene.heal("i2c1")
    until(lambda: scene.shown("relays") == {"a0": False, "b7": False}, "the expander at safe")
    assert scene.by_guard(bus="pins") == []


def test_the_next_daemon_takes_the_lines_over(scene: Scene) -> None:
    scene.drive()
    guard = scene.guard()
    scene.daemon.kill()
    scene.wait_all_safe()
    seen = len(scene.levels(VALVE))
    scene.start()
    assert {entry["device"] for entry in scene.journal()} == set(ACTUATORS)
    assert {entry["result"] for entry in scene.journal()} == {"done"}
    assert scene.levels(VALVE)[seen:] == [(0, "reset"), (VALVE_SAFE, "daemon")]
    freed, claimed = scene.entries(bus="pins", line=VALVE)[-2:]
    print(f"restart: the line was free for {(claimed['t'] - freed['t']) * 1000:.2f} ms")
    assert not any(event["event"] == "guard_started" for event in scene.daemon.events())
    # Told once, and at work as before.
    scene.drive()
    assert alive(guard)
    scene.daemon.kill()
    scene.wait_all_safe(2)
    scene.start()
    assert len(scene.journal()) == 2 * len(ACTUATORS)


def test_a_guard_that_dies_is_replaced(scene: Scene) -> None:
    scene.drive()
    first = scene.guard()
    kill(first)
    until(lambda: scene.guard() != first, "another guard")
    assert scene.daemon.ask("status")["guard"]["restarts"] == 1
    assert set(scene.daemon.ask("status")["guard"]["devices"]) == set(ACTUATORS)
    # Nothing moved, and nothing is forgotten.
    assert scene.by_guard() == []
    assert scene.holders(VALVE) == ["daemon", "guard"]
    until(lambda: scene.daemon.ask("status")["guard"]["up"], "the guard")
    scene.daemon.kill()
    scene.wait_all_safe()


def test_a_stuck_bus_delays_no_other(scene: Scene) -> None:
    scene.drive()
    scene.fault("i2c1", "stuck")
    scene.fault("meter", "unplug")
    scene.daemon.kill()
    scene.wait_guard(bus="pins", line=VALVE)
    scene.wait_guard(bus="pins", line=LAMP)
    scene.wait_guard(bus="broker", topic="plug/set")
    assert scene.shown("relays") == {"a0": True, "b7": True}
    scene.heal("i2c1")
    until(lambda: scene.shown("relays") == {"a0": False, "b7": False}, "the expander at safe")


def test_a_lost_device_is_not_left_on(scene: Scene) -> None:
    """A device that gives up closes its line; what it was last told must not stay."""
    scene.drive(("valve", "relays"))
    scene.fault("i2c1", "nack", "relays")
    until(lambda: scene.daemon.device("relays")["state"] != "online", "the loss of the expander")
    scene.daemon.kill()
    scene.wait_guard(bus="pins", line=VALVE)
    scene.heal("i2c1")
    until(lambda: scene.shown("relays") == {"a0": False, "b7": False}, "the expander at safe")


def test_an_unplugged_chip_is_let_go_and_guarded_again(scene: Scene) -> None:
    scene.fault("pins", "unplug")
    until(lambda: scene.daemon.device("valve")["state"] != "online", "the loss of the chip")
    scene.heal("pins")
    until(scene.online, "the chip's return")
    scene.drive(("valve",))
    scene.daemon.kill()
    scene.wait_guard(bus="pins", line=VALVE)


def test_a_changed_configuration_is_followed(scene: Scene) -> None:
    """The lamp moves to another line, and its old one becomes a device of its own."""
    scene.drive(("lamp",))
    text = scene.config.read_text()
    fan = f'[devices.fan]\ndriver = "gpio-output"\nbus = "pins"\nline = {LAMP}\nsafe = true\n'
    moved = text.replace(f"line = {LAMP}", "line = 5").replace("[devices.valve]", f"{fan}[devices.valve]")
    scene.config.write_text(moved)
    scene.daemon.process.send_signal(signal.SIGHUP)
    scene.daemon.wait_logged("reloaded")
    until(scene.online, "the devices after the change")
    assert (scene.holders(LAMP), scene.holders(5)) == (["daemon", "guard"], ["daemon", "guard"])
    scene.drive(("lamp",))
    scene.config.write_text(text.replace("[devices.valve]", "[devices.tap]"))
    scene.daemon.process.send_signal(signal.SIGHUP)
    until(lambda: len([e for e in scene.daemon.events() if e["event"] == "reloaded"]) == 2, "the change")
    until(scene.online, "the devices after the change")
    until(lambda: scene.holders(VALVE) == ["daemon", "guard"], "the tap on the valve's line")
    until(lambda: scene.holders(5) == [], "the lamp's line let go")
    scene.daemon.kill()
    until(lambda: scene.holders(VALVE) == scene.holders(LAMP) == ["guard"], "the guard alone")


def test_a_guard_as_a_service_holds_the_lines_after_an_orderly_stop(new_scene, service: Service) -> None:
    scene = new_scene(10.0)
    scene.start(**environment_of(service))
    assert not any(event["event"] == "guard_started" for event in scene.daemon.events())
    scene.drive()
    assert scene.daemon.stop() == 0
    assert scene.holders(VALVE) == ["guard"]
    assert scene.levels(VALVE)[-1] == (VALVE_SAFE, "daemon")
    # The next daemon gets them, and the service goes on.
    scene.start(**environment_of(service))
    scene.drive()
    scene.daemon.kill()
    scene.wait_all_safe()
    scene.start(**environment_of(service))
    assert {entry["device"] for entry in scene.journal()} == set(ACTUATORS)
    service.close()
    until(lambda: scene.daemon.ask("status")["guard"]["child"], "a guard of the daemon's own")


def test_no_line_is_let_go_that_the_next_daemon_cannot_take(scene: Scene) -> None:
    scene.drive(("valve",))
    scene.daemon.kill()
    scene.wait_guard(bus="pins", line=VALVE)
    scene.fault("pins", "stuck")
    scene.start(online=False)
    buses = lambda: scene.daemon.ask("status")["buses"]  # noqa: E731
    until(
        lambda: any(b["bus"] == "pins" and b.get("last_error") for b in buses()), "a chip that is not opened"
    )
    assert (0, "reset") not in scene.levels(VALVE)
    scene.heal("pins")
    until(scene.online, "the devices")
    assert scene.levels(VALVE)[-1] == (VALVE_SAFE, "daemon")


def test_daemon_and_guard_that_die_together_leave_nothing_on(new_scene, service: Service) -> None:
    scene = new_scene(10.0)
    scene.start(**environment_of(service))
    scene.drive()
    service.kill()
    scene.daemon.kill()
    assert scene.shown("relays") == {"a0": True, "b7": True}
    service.start_again()
    scene.wait_all_safe()
    assert scene.holders(VALVE) == scene.holders(LAMP) == ["guard"]
    scene.start(**environment_of(service))
    assert {entry["device"] for entry in scene.journal()} == set(ACTUATORS)
    scene.drive()


def test_a_guard_that_alone_was_killed_moves_nothing(new_scene, service: Service) -> None:
    scene = new_scene(10.0)
    scene.start(**environment_of(service))
    scene.drive()
    service.kill()
    service.start_again()
    until(lambda: scene.daemon.ask("status")["guard"]["restarts"] == 1, "the loss")
    until(lambda: scene.daemon.ask("status")["guard"]["up"], "the guard")
    assert scene.by_guard() == []
    scene.daemon.kill()
    scene.wait_all_safe()


def test_other_users_may_not_connect(scene: Scene) -> None:
    path = scene.folder / "state" / "run" / "guard.sock"
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
def test_many_deaths(scene: Scene) -> None:
    """The same guard through it all."""
    guard = scene.guard()
    for count in itertools.count(1):
        scene.drive()
        scene.daemon.kill()
        scene.wait_all_safe(count)
        if count == 5:
            break
        scene.start()
    assert alive(guard)
    scene.start()
    assert scene.daemon.stop() == 0
    until(lambda: not alive(guard), "the end of the guard", LIMIT_S)
