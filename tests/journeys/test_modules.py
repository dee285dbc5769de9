"""What a daemon at work holds in memory, in modules and their owners; `bench_footprint` has the bytes."""

import json
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from device_agent.testing.network import NetworkThread
from support.callers import pipe, question, result, stream
from support.deployment import World
from support.processes import Daemon
from support.waiting import LIMIT_S

LISTING = """
import json, sys
from device_agent.cli import main
code = main()
with open({file!r}, "w") as file:
    json.dump(sorted(sys.modules), file)
sys.exit(code)
"""

# Whose modules these may be beside the standard library's and our own, and how many they bring at most.
OWNERS = {
    "aiohttp": 60,
    "aiohappyeyeballs": 8,
    "aiosignal": 2,
    "attr": 20,
    "frozenlist": 3,
    "idna": 8,
    "msgpack": 6,
    "multidict": 6,
    "propcache": 6,
    "pubnub": 40,
    "structlog": 30,
    "typing_extensions": 1,
    "yarl": 12,
    "device_agent": 220,
    "device_agent_drivers": 20,
}
# What only commands and the process that checks a configuration need.
NEEDLESS = {
    "device_agent.config.reader",
    "device_agent.registry",
    "tomllib",
    "difflib",
    "importlib.metadata",
    "cbor2",
    "bz2",
    "lzma",
    "device_agent.testing.board.core",
}
# Of the interpreter's own start in an environment, and of compiled modules.
AT_START = {"sitecustomize", "usercustomize", "cython_runtime"}


def loaded(folder: Path, net: NetworkThread, alice: Any) -> set[str]:
    """The modules of a daemon that has measured, joined, obeyed, answered and reloaded."""
    with World(folder, net) as world:
        assert world.board is not None
        listing = folder / "modules.json"
        environment = {"BLOCKS_API_KEY": "bk_device", "DEVICE_AGENT_BOARD": str(world.board.socket)}
        python = ("-c", LISTING.format(file=str(listing)))
        daemon = Daemon(folder, world.config, environment, python=python)
        world.daemons.append(daemon)
        daemon.wait_logged("joined")
        work(daemon, alice)
        assert daemon.stop() == 0
        return set(json.loads(listing.read_text()))


def work(daemon: Daemon, alice: Any) -> None:
    session = pipe(alice, {"streams": ["control"]})
    control = stream(session, "control")
    control.wait("reading", device="climate")
    assert control.command(kind="set", id="1", device="valve", values={"on": True})["state"] == "done"
    assert control.command(kind="set", id="2", device="valve", values={"on": "x"})["state"] == "rejected"
    assert result(question(alice, {"op": "read"}))["state"] == "done"
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_logged("reloaded")
    session.cancel()
    session.wait_for_terminal(LIMIT_S)


def test_the_daemon_holds_nothing_that_it_does_not_use(
    net: NetworkThread, alice: Any, tmp_path: Path
) -> None:
    modules = loaded(tmp_path, net, alice)
    owners = Counter(name.partition(".")[0] for name in modules)
    known = {*OWNERS, *AT_START, *sys.stdlib_module_names}
    strangers = [name for name in owners if name not in known and not name.startswith("_")]
    assert not strangers, "a daemon that idles pays for these, too"
    many = {name: count for name, count in owners.items() if count > OWNERS.get(name, count)}
    assert not many, "what is imported, and is it used?"
    assert sorted(NEEDLESS & modules) == []
