"""`init` as a process: with answers on a terminal, and without one."""

import io
import json
import os
import select
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from device_agent.cli.init import led
from device_agent.discovery.compose import Answers
from device_agent.discovery.results import DetectedGpio, ScanResult
from support.terminal import open_terminal

LIMIT_S = 60
WORDS = [sys.executable, "-m", "device_agent", "init"]


def run(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "DEVICE_AGENT_CONFIG"}
    return subprocess.run(
        [*WORDS, *words], capture_output=True, text=True, timeout=LIMIT_S, check=False, cwd=folder,
        env=environment, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def check(path: Path) -> dict[str, object]:
    command = [sys.executable, "-m", "device_agent", "--config", str(path), "check", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stdout
    return dict(json.loads(done.stdout))


def test_without_a_terminal_options_answer(tmp_path: Path) -> None:
    done = run(
        "--yes", "--name", "greenhouse_7", "--display-name", 'The "green" house',
        "--organization", "Example Farm",
        "--tag", "greenhouse", "--tag", "climate", "--read", "org:org_1", "--drive", "user:user_9",
        "--listing", "public", "--device", "host", "--state", "state",
        folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    path = tmp_path / "agent.toml"
    assert check(path)["valid"]
    written = tomllib.loads(path.read_text())
    assert written["agent"]["display_name"] == 'The "green" house'
    assert written["agent"]["tags"] == ["greenhouse", "climate"]
    assert written["access"] == {"read": ["org:org_1"], "drive": ["user:user_9"]}
    assert written["network"] == {"listing": "public"}
    assert written["state"]["directory"] == str(tmp_path / "state")
    assert list(written["devices"]) == ["host"]
    assert path.stat().st_mode & 0o777 == 0o644
    assert "device-agent --config agent.toml check" in done.stdout
    assert "device-agent --config agent.toml run" in done.stdout


def test_nothing_is_overwritten_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("# mine")
    done = run("--yes", "--out", str(path), folder=tmp_path)
    assert done.returncode == 1
    assert "--force" in done.stderr
    assert path.read_text() == "# mine"
    assert json.loads(run("--json", "--force", "--out", str(path), folder=tmp_path).stdout)["devices"] == [
        "host"
    ]
    assert check(path)["valid"]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ([], 2, "nobody is there to ask"),
        (["--yes", "--name", "a b"], 2, "letters"),
        (["--yes", "--drive", "me"], 2, "org:ID"),
        (["--yes", "--display-name", "x" * 200], 2, "at most 120"),
        (["--yes", "--device", "nothing"], 1, "was not found here"),
    ],
)
def test_what_is_refused(tmp_path: Path, words: list[str], code: int, says: str) -> None:
    done = run(*words, folder=tmp_path)
    assert (done.returncode, says in done.stderr) == (code, True), done.stderr
    assert not list(tmp_path.iterdir())


def test_a_person_is_led_through_it(tmp_path: Path) -> None:
    quiet = {**os.environ, "NO_COLOR": "1"}
    main_end, their_end = open_terminal()
    process = subprocess.Popen(
        [*WORDS, "--out", "agent.toml", "--device", "host"],
        stdin=their_end, stdout=their_end, stderr=their_end, cwd=tmp_path, env=quiet,
    )  # fmt: skip
    os.close(their_end)
    seen = ""

    def expect(words: str) -> None:
        nonlocal seen
        deadline_s = time.monotonic() + LIMIT_S
        while words not in seen:
            left_s = deadline_s - time.monotonic()
            assert left_s > 0, f"no {words!r} in:\n{seen}"
            if select.select([main_end], [], [], left_s)[0]:
                seen += os.read(main_end, 4096).decode()
        seen = seen.partition(words)[2]

    try:
        for question, answer in (
            ("Name on the network [", "no good"),
            ("'no good' is not letters", "house"),
            ("Name for people [House]", "Hühnerhaus"),
            ("What it senses and does [", ""),
            ("Organisation [", "Farm"),
            ("Tags, separated by commas [", "hens, climate"),
            ("private or public [private]", ""),
            ("Who may read: me, anyone, org:ID, user:ID [anyone]", ""),
            ("Who may drive; empty is nobody []", "user:me"),
            ("Where its state is kept [", str(tmp_path / "state")),
        ):
            expect(question)
            os.write(main_end, f"{answer}\n".encode())
        expect("Next:")
        assert process.wait(LIMIT_S) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(main_end)
    written = tomllib.loads((tmp_path / "agent.toml").read_text())
    assert written["agent"]["name"] == "house"
    assert written["agent"]["display_name"] == "Hühnerhaus"
    assert written["agent"]["tags"] == ["hens", "climate"]
    assert written["access"] == {"read": "anyone", "drive": ["user:me"]}
    assert check(tmp_path / "agent.toml")["valid"]


def test_relays_and_buttons_are_options(tmp_path: Path) -> None:
    words = (
        "--yes",
        "--relay",
        "27",
        "--relay",
        "022",
        "--relays-high",
        "--button",
        "17",
        "--drive",
        "org:org_1",
    )
    done = run(*words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    written = tomllib.loads((tmp_path / "agent.toml").read_text())
    assert check(tmp_path / "agent.toml")["valid"]
    relay, button = written["devices"]["relay_27"], written["devices"]["button_17"]
    assert (relay["line"], relay["active_low"], relay["safe"], relay["max_on_s"]) == (27, False, False, 600)
    assert (button["line"], button["active_low"], button["bias"]) == (17, True, "pull-up")
    live = written["streams"]["live"]
    assert (live["direction"], live["devices"]) == (
        "bidirectional",
        ["host", "button_17", "relay_27", "relay_22"],
    )
    twice = run("--yes", "--force", "--relay", "17", "--button", "17", folder=tmp_path)
    assert (twice.returncode, "line 17 is named twice" in twice.stderr) == (2, True)


def test_where_there_is_a_header_relays_and_buttons_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = ScanResult(gpio=(DetectedGpio("/dev/gpiochip0", "pinctrl-bcm2711"),))
    said = ["", "", "", "", "", "", "", "org:org_1", "/tmp/x", "27, 22", "no", "22", "17", "yes"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(said) + "\n"))
    answers = led(Answers("house"), found, [])
    assert (answers.relays, answers.relays_low, answers.buttons) == (("27", "22"), False, ("17",))
    assert "line 22 is a relay's" in capsys.readouterr().out
