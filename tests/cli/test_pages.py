"""README and docs/ as a reader takes them: every block is run, in order, on a clean machine.

That is a home and a folder of their own, a simulated board and a local network. A block that cannot run there
says in its first line what it needs (```sh needs root); these are counted, and nothing else is left out.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from device_agent.operate.control_socket import ask
from device_agent.testing.network.hosting import NetworkProcess
from device_agent.testing.network.sdk import sdk_environment
from support.terminal import open_terminal
from support.waiting import until

ROOT = Path(__file__).parents[2]
LIMIT_S = 60
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
NOT_RUN = {
    ("README.md", "needs root"): 2,
    ("README.md", "needs a package index"): 1,
    ("docs/first-ten-minutes.md", "needs root"): 2,
    ("docs/first-ten-minutes.md", "needs a package index"): 1,
    ("docs/mcp.md", "needs a package index"): 1,
    ("docs/mqtt.md", "needs a broker"): 1,
    ("docs/mqtt.md", "needs a package index"): 1,
    ("docs/operations.md", "needs root"): 1,
    ("docs/page.md", "needs another machine"): 1,
    ("docs/page.md", "needs Prometheus"): 1,
}
BLOCK = re.compile(r"^```(?P<kind>\w*)(?: (?P<needs>[^\n]*))?\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
# Pictures of the parts, and what a run has printed: no command, no file.
DRAWINGS = {"README.md": 1, "docs/architecture.md": 2, "docs/first-ten-minutes.md": 2}
# What a person types where a command asks.
TYPED = {"login": "bk_owner\n", "publish": "y\n", "install": "bk_owner\n"}
# As the README has it, but for the network, and for a machine that is busy with other tests.
MORE = """
[network]
cdm_url = "{cdm_url}"
pubnub_origin = "{origin}"
pubnub_tls = false
[safety]
guard_timeout_s = 10
lease_idle_s = 0.5
[buses.more]
kind = "gpio"
chip = "more"
[buses.line]
kind = "serial"
port = "/dev/ttyUSB0"
{devices}
[history]
"""
LAMP = '[devices.{}]\ndriver = "gpio-output"\nbus = "more"\nline = {}\nsafe = false'


def blocks(page: str) -> list[tuple[str, str, str]]:
    """Kind, what it needs, text."""
    found = BLOCK.finditer((ROOT / page).read_text())
    return [(match["kind"], match["needs"] or "", match["text"]) for match in found]


class Machine:
    """Runs the lines of a page; what was started goes on until the end."""

    def __init__(self, folder: Path, network: NetworkProcess) -> None:
        self.folder = folder
        self.network = network
        self.config = folder / "agent.toml"
        self.buses: dict[str, Any] = {}
        """Of the page so far; its devices are one example beside the other."""
        self.servers: dict[str, subprocess.Popen[bytes]] = {}
        (folder / "home").mkdir()
        kept = {key: os.environ[key] for key in ("PATH", "LANG", "TMPDIR") if key in os.environ}
        self.environ = {
            **kept,
            "PATH": f"{Path(sys.executable).parent}:{kept['PATH']}",
            "HOME": str(folder / "home"),
            "USER": "somebody",
            "DEVICE_AGENT_CONFIG": str(self.config),
            "DEVICE_AGENT_BOARD": str(folder / "board.sock"),
            "BLOCKS_CDM_URL": network.cdm_url,
            "VENV": str(self._environment()),
        }

    @property
    def caller(self) -> dict[str, str]:
        """What points the official SDK at this network."""
        return dict(sdk_environment(self.network.cdm_url, f"127.0.0.1:{self.network.port}", "bk_9"))

    def _environment(self) -> Path:
        """This interpreter's environment, as `make` would have made it."""
        made = self.folder / "venv"
        made.mkdir()
        for entry in Path(sys.prefix).iterdir():
            (made / entry.name).symlink_to(entry)
        if not (made / "installed").exists():
            (made / "installed").touch()
        return made

    def write(self, text: str) -> None:
        """The README's configuration, with this network and some more lamps; and its board."""
        devices = "\n".join(LAMP.format(name, 4 + n) for n, name in enumerate(("lamp", "heater")))
        origin = f"127.0.0.1:{self.network.port}"
        self.config.write_text(
            text + MORE.format(cdm_url=self.network.cdm_url, origin=origin, devices=devices)
        )
        self.serve("board", "device-agent", "board", "run", "--socket", self.environ["DEVICE_AGENT_BOARD"])
        until((self.folder / "board.sock").exists, "the board's socket", LIMIT_S)

    def serve(self, name: str, *words: str) -> None:
        """Start what does not end; the second time see that it still runs."""
        if name not in self.servers:
            with (self.folder / f"{name}.log").open("wb") as log:
                self.servers[name] = subprocess.Popen(
                    words, cwd=self.folder, env=self.environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
        assert self.servers[name].poll() is None, (self.folder / f"{name}.log").read_text()[-2000:]

    def status(self) -> dict[str, Any]:
        path = Path(
            tomllib.loads(self.config.read_text())["state"]["directory"].replace("~", self.environ["HOME"])
        )
        try:
            return dict(ask(path / "run" / "control.sock", {"op": "status"}, 5.0)["result"])
        except OSError:
            return {}

    def close(self) -> None:
        for process in reversed(self.servers.values()):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    # -- a line ----------------------------------------

    def line(self, line: str) -> None:
        line = line.replace("/tmp/board.sock", self.environ["DEVICE_AGENT_BOARD"])
        line = line.replace("127.0.0.1:8700", f"127.0.0.1:{self.network.port}").replace(
            "--for 1m", "--for 2s"
        )
        words = shlex.split(line)
        if words[0] == "export":
            return  # what they say holds from the beginning
        if words[0] == "device-agent":
            words = words[3:] if words[1] == "--config" else words[1:]
        match words:
            case ["dev-network", *_]:
                assert self.network.port
            case ["board", "run", *_]:
                self.serve("board")
            case ["run", *_]:
                self.serve("daemon", "device-agent", "run", "--simulate")
                until(lambda: self.status().get("devices"), "the daemon's answer", LIMIT_S)
            case ["monitor", *_] | ["call", _, *_, "watch"]:
                self._watched(line)
            case _:
                self._done(line, words)

    def _environment_of(self, words: list[str]) -> dict[str, str]:
        """A caller's key is for callers: the others have the login's, or the device's file."""
        if words[0] != "call":
            return self.environ
        until(lambda: self.status().get("link", {}).get("joined"), "the daemon to have joined", LIMIT_S)
        return {**self.environ, **self.caller}

    def _done(self, line: str, words: list[str]) -> None:
        """A command that ends. `publish` asks on a terminal; a key is not typed where others may read it."""
        ours, theirs = open_terminal() if words[0] == "publish" else os.pipe()[::-1]
        os.write(ours, TYPED.get(words[0], "").encode())
        if words[0] != "publish":
            os.close(ours)
        try:
            done = subprocess.run(
                ["bash", "-ec", line], cwd=ROOT if words[0] == "make" else self.folder, stdin=theirs,
                env=self._environment_of(words), capture_output=True, text=True, timeout=LIMIT_S, check=False,
            )  # fmt: skip
        finally:
            os.close(theirs)
            if words[0] == "publish":
                os.close(ours)
        # On a machine of which nothing is a Raspberry Pi, doctor finds much.
        allowed = (0, 1) if words[0] == "doctor" else (0,)
        assert done.returncode in allowed, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"

    def _watched(self, line: str) -> None:
        """A command that goes on until Ctrl-C."""
        words = shlex.split(line)
        process = subprocess.Popen(
            words, cwd=self.folder, env=self._environment_of(words[words.index("device-agent") + 1 :]),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline(), process.communicate()
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=LIMIT_S)
        assert process.returncode in (0, 130), complaint


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("m")
    with NetworkProcess("--auto-register") as network:
        made = Machine(folder, network)
        try:
            yield made
        finally:
            made.close()


def test_blocks_that_are_not_run_are_counted() -> None:
    marked = Counter((page, needs) for page in PAGES for _, needs, _ in blocks(page) if needs)
    assert marked == NOT_RUN
    assert Counter(page for page in PAGES for kind, _, _ in blocks(page) if not kind) == DRAWINGS


@pytest.mark.parametrize("page", PAGES)
def test_every_block_runs(page: str, machine: Machine) -> None:
    machine.buses = {}
    for kind, needs, text in blocks(page):
        if needs or not kind:
            continue
        {"sh": _shell, "toml": _toml, "json": _json, "python": _python}[kind](text, machine)


def _shell(text: str, machine: Machine) -> None:
    for line in text.splitlines():
        if line:
            machine.line(line.partition("   #")[0].removesuffix(" &"))


def _json(text: str, machine: Machine) -> None:
    while text := text.strip():
        text = text[json.JSONDecoder().raw_decode(text)[1] :]


def _toml(text: str, machine: Machine) -> None:
    told = tomllib.loads(text)
    if "agent" in told and not machine.config.exists():
        machine.write(text)
    if "project" in told:
        return  # of a driver's package, which is installed and used in tests/third_party
    machine.buses |= told.get("buses", {})
    whole = merged(tomllib.loads(machine.config.read_text()), {**told, "buses": machine.buses})
    for name in ("page_password", "page.crt", "page.key"):
        (machine.folder / name).touch(mode=0o600)
    path = machine.folder / "part.toml"
    path.write_text("\n".join(written((), whole)))
    command = [sys.executable, "-m", "device_agent", "check", str(path)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT_S, check=False, env=machine.environ
    )
    assert done.returncode == 0, f"{text}\n{done.stderr}"


def merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Table by table; a bus or a device that is written whole takes the place of the one before."""
    more = [
        key for key in one if isinstance(one[key], dict) and not {"driver", "kind"} & {*other.get(key, ())}
    ]
    return {**one, **other, **{key: merged(one[key], other.get(key, {})) for key in more}}


def written(path: tuple[str, ...], table: dict[str, Any]) -> Iterator[str]:
    """A table as TOML."""
    if path:
        yield f"[{'.'.join(map(json.dumps, path))}]"
    inner = {key: value for key, value in table.items() if isinstance(value, dict)}
    for key, value in table.items():
        if key not in inner:
            yield f"{json.dumps(key)} = {inline(value)}"
    for key, value in inner.items():
        yield from written((*path, key), value)


def inline(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{json.dumps(key)} = {inline(one)}' for key, one in value.items())} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(inline, value))}]"
    return json.dumps(value)


def _python(text: str, machine: Machine) -> None:
    if "TaskClient" not in text:
        assert text == (ROOT / "tests" / "third_party" / "acme_tmp117" / "acme_tmp117.py").read_text()
        return
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=LIMIT_S, check=False,
        env={**machine.environ, **machine.caller},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "done {'on': True} verified: True None" in done.stdout
    assert "climate {'temperature':" in done.stdout
    assert done.stdout.splitlines()[-1] == "canceled"
