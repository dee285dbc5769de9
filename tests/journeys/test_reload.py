"""SIGHUP while a session runs."""

import signal
from collections.abc import Callable
from typing import Any

from support.callers import pipe, stream
from support.deployment import CONFIG, World
from support.waiting import LIMIT_S, until


def test_reload_touches_only_what_changed(new_world: Callable[..., World], alice: Any) -> None:
    world = new_world()
    daemon = world.start()
    session = pipe(alice, {"streams": ["control"]})
    control = stream(session, "control")
    assert control.command(kind="set", id="1", device="valve", values={"on": True})["state"] == "done"
    text = world.config.read_text()
    world.config.write_text(text.replace("every_s = 0.2", "every_s = 0.1"))
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_logged("reloaded")
    reloaded = next(entry for entry in daemon.events() if entry["event"] == "reloaded")
    assert (reloaded["changed"], reloaded["removed"], reloaded["added"]) == (["climate"], [], [])
    assert world.board.levels(27)[-1] == 0, "the relay was not touched"
    seen = len(control.of("reading", device="climate"))
    until(lambda: len(control.of("reading", device="climate")) > seen + 3, "the changed device goes on")
    world.config.write_text(text.replace("[devices.door]", "[devices.door"))
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_logged("reload_refused")
    (why,) = daemon.ask("status")["configuration"]["refused"]
    assert "is not valid TOML" in why
    assert control.command(kind="set", id="2", device="valve", values={"on": True})["state"] == "done"
    world.config.write_text(text.replace("max_on_s = 600", "max_on_s = 500"))
    daemon.process.send_signal(signal.SIGHUP)
    until(lambda: world.board.levels(27)[-1] == 1, "the changed actuator is safe")
    until(lambda: daemon.device("valve")["state"] == "online", "the changed actuator is back")
    assert control.command(kind="set", id="3", device="valve", values={"on": True})["state"] == "done"
    assert daemon.ask("status")["configuration"] == {"refused": [], "waits_for_restart": []}
    session.cancel()
    session.wait_for_terminal(LIMIT_S)


def test_what_waits_for_a_restart_is_said_until_then(new_world: Callable[..., World]) -> None:
    world = new_world()
    daemon = world.start()
    text = world.config.read_text()

    def reload(file: str) -> None:
        seen = sum(entry["event"] == "reloaded" for entry in daemon.events())
        world.config.write_text(file)
        daemon.process.send_signal(signal.SIGHUP)
        until(lambda: sum(entry["event"] == "reloaded" for entry in daemon.events()) > seen)

    def waiting() -> Any:
        return daemon.ask("status")["configuration"]["waits_for_restart"]

    changed = text + "[history]\nenabled = false\n"
    reload(changed)
    assert waiting() == ["history"]
    reload(changed.replace("every_s = 0.2", "every_s = 0.1"))
    assert waiting() == ["history"], "it is not in force yet"
    reload(text)
    assert waiting() == []


def test_a_right_that_was_taken_ends_at_once(new_world: Callable[..., World], alice: Any) -> None:
    """The valve goes to safe, the reading stops, and the device does not exist for the session any more."""
    world = new_world()
    daemon = world.start()
    session = pipe(alice, {"streams": ["control"], "every_s": 0.1})
    control = stream(session, "control")
    assert control.command(kind="set", id="1", device="valve", values={"on": True})["state"] == "done"
    control.wait("reading", device="climate")
    text = world.config.read_text()
    world.config.write_text(
        text + '[access.devices.valve]\ndrive = []\n[access.devices.climate]\nread = ["user:nobody"]\n'
    )
    daemon.process.send_signal(signal.SIGHUP)
    until(lambda: world.board.levels(27)[-1] == 1, "the valve at safe")
    daemon.wait_logged("reloaded")
    assert control.command(kind="set", id="2", device="valve", values={"on": True})["error"]["code"] == (
        "not_allowed"
    )
    # What comes now comes after the change.
    last = len(control.of("reading", device="climate"))
    assert control.command(kind="set", id="3", device="climate", values={})["error"]["code"] == (
        "invalid_value"
    )
    ack = control.command(kind="set", id="4", device="climate", values={"temperature": 1})
    assert ack["error"]["code"] == "unknown_device"
    until(lambda: daemon.device("climate")["latest"]["at"], "a reading of its own")
    assert len(control.of("reading", device="climate")) <= last + 1
    session.cancel()
    session.wait_for_terminal(LIMIT_S)


def test_a_session_that_selected_what_is_gone_after_a_restart_goes_on(
    new_world: Callable[..., World], alice: Any
) -> None:
    world = new_world()
    daemon = world.start()
    session = pipe(alice, {"streams": ["control"]})
    control = stream(session, "control")
    control.wait("control", about="session")
    for word in ({"kind": "select", "devices": ["climate", "valve"]}, {"kind": "rate", "device": "climate"}):
        control.stream.write(word)
        assert control.wait("control", about=word["kind"])["ok"] is True
    assert daemon.stop() == 0
    text = world.config.read_text()
    world.config.write_text(text + '[access.devices.climate]\nread = ["user:nobody"]\n')
    world.start()
    assert control.command(kind="set", id="1", device="valve", values={"on": True})["state"] == "done"
    until(lambda: control.of("reading", device="valve", values={"on": True}), "the valve's new reading")
    session.cancel()
    assert session.wait_for_terminal(LIMIT_S)["state"] == "canceled"


RELAYS = """
[devices.relays]
driver = "mcp23017"
bus = "i2c1"
address = 0x20
outputs = ["a0"]
safe = false
"""


def test_all_that_changed_is_made_safe_at_once(new_world: Callable[..., World], alice: Any) -> None:
    """The relays come first, and their bus is stuck; the valve does not wait for them."""
    config = CONFIG.replace("[devices.climate]", RELAYS + "[devices.climate]")
    config = config.replace('device = "/dev/i2c-1"\ntimeout_s = 0.5', 'device = "/dev/i2c-1"\ntimeout_s = 3')
    config = config.replace('devices = ["valve", "door"', 'devices = ["relays", "valve", "door"')
    world = new_world(config=config)
    daemon = world.start()
    session = pipe(alice, {"streams": ["control"]})
    control = stream(session, "control")
    assert control.command(kind="set", id="1", device="relays", values={"a0": True})["state"] == "done"
    assert control.command(kind="set", id="2", device="valve", values={"on": True})["state"] == "done"
    text = world.config.read_text()
    text = text.replace("max_on_s = 600", "max_on_s = 500").replace(
        "[devices.relays]", "[devices.relays]\nmax_on_s = 9"
    )
    world.config.write_text(text)
    world.board.do("fault", "i2c1", "stuck")
    daemon.process.send_signal(signal.SIGHUP)
    until(lambda: world.board.levels(27)[-1] == 1, "the valve at safe")
    daemon.wait_logged("reloaded")
    told = [
        (entry["event"], entry["device"])
        for entry in daemon.events()
        if entry["event"] in ("made_safe", "not_made_safe", "not_made_safe_at_reload")
    ]
    # Before the change is known they may be missed, and tried in vain, once more.
    given_up = told.index(("not_made_safe_at_reload", "relays"))
    tried = [at for at, one in enumerate(told[:given_up]) if one == ("not_made_safe", "relays")]
    assert told.index(("made_safe", "valve")) < tried[-1], told
    world.board.do("heal")
    until(lambda: daemon.device("relays").get("at_safe"), "the relays at safe after all")
    session.cancel()
    session.wait_for_terminal(LIMIT_S)


def test_a_session_on_a_shared_stream_ends_with_its_right(
    new_world: Callable[..., World], caller: Callable[..., Any]
) -> None:
    """Nothing can be taken out of a stream that others read, too: who may not read it loses it whole."""
    world = new_world()
    daemon = world.start()
    alice, bob = (pipe(caller(name), {"streams": ["telemetry", "control"]}) for name in ("alice", "bob"))
    control = stream(alice, "control")
    heard = stream(bob, "telemetry")
    heard.wait("reading", device="climate")
    assert control.command(kind="set", id="1", device="valve", values={"on": True})["state"] == "done"
    text = world.config.read_text()
    world.config.write_text(text + '[access.devices.climate]\nread = ["user:user_bob"]\n')
    daemon.process.send_signal(signal.SIGHUP)
    assert alice.wait_for_terminal(LIMIT_S)["state"] == "canceled"
    assert daemon.logged("session_lost_its_right")
    until(lambda: world.board.levels(27)[-1] == 1, "the valve of the session that ended at safe")
    seen = len(heard.of("reading", device="climate"))
    until(lambda: len(heard.of("reading", device="climate")) > seen + 3, "the other reader goes on")
    assert [one["task"] for one in daemon.ask("status")["sessions"]] == [bob.task_id]
    bob.cancel()
    bob.wait_for_terminal(LIMIT_S)
