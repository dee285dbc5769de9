"""The command line from outside: exit codes, one sentence instead of a traceback, tables and JSON."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.terminal import open_terminal
from support.waiting import until

ROOT = Path(__file__).parents[2]
GREENHOUSE = ROOT / "cards" / "greenhouse.toml"


def run(
    *words: object, environ: dict[str, str] | None = None, **options: object
) -> subprocess.CompletedProcess[str]:
    base = {key: value for key, value in os.environ.items() if key not in ("DEVICE_AGENT_CONFIG", "NO_COLOR")}
    return subprocess.run(
        [sys.executable, "-m", "device_agent", *map(str, words)],
        env={**base, **(environ or {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,
    )


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    path = tmp_path / "wrong.toml"
    path.write_text('[agent]\nname = "a-b"\n[devices.x]\ndriver = "gpio_output"\n')
    return path


def test_help_names_every_installed_command():
    done = run("--help")
    assert done.returncode == 0
    for command in ("check", "card", "drivers", "version"):
        assert f"    {command} " in done.stdout


def test_without_a_command_help_is_on_standard_error():
    done = run()
    assert (done.returncode, done.stdout) == (2, "")
    assert "COMMAND" in done.stderr


@pytest.mark.parametrize("words", [("version",), ("--version",)])
def test_version(words):
    done = run(*words)
    assert done.returncode == 0
    assert done.stdout.startswith("device-agent 0.")


def test_version_as_json():
    assert set(json.loads(run("version", "--json").stdout)) == {"version"}


def test_a_mistyped_command_is_guessed():
    done = run("chek")
    assert done.returncode == 2
    assert 'there is no command "chek": did you mean "check"?' in done.stderr


def test_a_mistyped_option_is_usage():
    done = run("check", "--jsn")
    assert done.returncode == 2
    assert "--jsn" in done.stderr


def test_the_configuration_is_named_before_or_after_or_by_the_environment():
    for done in (
        run("--config", GREENHOUSE, "check"),
        run("check", "--config", GREENHOUSE),
        run(f"--config={GREENHOUSE}", "check"),
        run("check", environ={"DEVICE_AGENT_CONFIG": str(GREENHOUSE)}),
        run("--config", "/nowhere", "check", "--config", GREENHOUSE),
        run("check", "--config", GREENHOUSE, environ={"DEVICE_AGENT_CONFIG": "/nowhere"}),
    ):
        assert (done.returncode, done.stderr) == (0, "")
        assert (
            done.stdout == f"{GREENHOUSE} is right: agent greenhouse_7 with 5 devices, 3 buses, 2 streams\n"
        )


def test_the_default_path_is_etc():
    told = json.loads(run("check", "--json", environ={"DEVICE_AGENT_CONFIG": ""}).stdout)
    assert told["path"] == "/etc/device-agent/agent.toml"


def test_check_warns_of_a_state_directory_that_run_would_refuse(tmp_path: Path):
    state = tmp_path / "state"
    state.mkdir()
    state.chmod(0o777)
    path = tmp_path / "agent.toml"
    path.write_text(f'[agent]\nname = "house"\n[state]\ndirectory = "{state}"\n')
    told = json.loads(run("check", "--config", path, "--json").stdout)
    assert told["valid"]
    assert f"others may write into {state} (mode 0777): run chmod 700 {state}" in told["warnings"]
    refused = run("run", "--config", path, environ={"BLOCKS_API_KEY": "bk_device"})
    assert refused.returncode == 78
    assert f"others may write into {state}" in refused.stderr


def test_check_shows_every_problem_and_ends_with_78(wrong):
    done = run("check", "--config", wrong)
    assert (done.returncode, done.stdout) == (78, "")
    first, second = done.stderr.splitlines()
    assert first.startswith('error: agent.name = "a-b" must match ^[a-zA-Z0-9_]+$')
    assert second.startswith(
        'error: devices.x.driver "gpio_output" is not installed: did you mean "gpio-output"?'
    )


def test_check_as_json(wrong):
    done = run("check", "--json", "--config", wrong)
    told = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (78, "")
    assert (told["valid"], told["path"], len(told["errors"])) == (False, str(wrong), 2)
    right = json.loads(run("check", "--json", "--config", GREENHOUSE).stdout)
    assert right == {"path": str(GREENHOUSE), "valid": True, "errors": [], "warnings": []}


def test_a_warning_leaves_the_exit_code_0(tmp_path):
    path = tmp_path / "agent.toml"
    path.write_text(
        GREENHOUSE.read_text().replace(
            'direction = "outbound"', 'direction = "outbound"\naffinity = "shared"'
        )
    )
    done = run("check", "--config", path)
    assert done.returncode == 0
    assert done.stdout.startswith(
        "warning: the card declares request tasks beside the shared stream telemetry"
    )


def test_card_prints_or_writes_the_same(tmp_path):
    printed = run("card", "--config", GREENHOUSE)
    assert printed.returncode == 0
    assert json.loads(printed.stdout)["identity"]["agentName"] == "greenhouse_7"
    out = tmp_path / "card.json"
    assert run("card", "--config", GREENHOUSE, "--out", out).returncode == 0
    assert out.read_text() == printed.stdout
    failed = run("card", "--config", GREENHOUSE, "--out", tmp_path)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr == (
        f"error: the card cannot be written to {tmp_path} (Is a directory): choose another file\n"
    )


def test_drivers_are_listed_and_described():
    told = {one["name"]: one for one in json.loads(run("drivers", "--json").stdout)}
    assert told["gpio-output"]["bus"] == "gpio"
    assert all(one["package"] and one["description"] for one in told.values())
    table = run("drivers").stdout.splitlines()
    assert table[0].split() == ["driver", "bus", "what", "it", "is"]
    assert [line.split()[0] for line in table[1:]] == list(told)
    pulse = json.loads(run("drivers", "describe", "gpio-output", "--json").stdout)
    options = {option["name"]: option for option in pulse["options"]}
    assert options["line"]["required"]
    assert options["safe"]["required"]
    assert options["bus"]["required"]
    assert options["max_on_s"]["type"] == "number > 0, ≤ 31536000"
    assert pulse["points"] == [
        {
            "name": "on",
            "type": "boolean",
            "unit": "",
            "write": True,
            "description": "Whether the line is driven active.",
        }
    ]
    assert [action["name"] for action in pulse["actions"]] == ["pulse"]


def test_every_driver_can_be_described():
    for driver in json.loads(run("drivers", "--json").stdout):
        done = run("drivers", "describe", driver["name"])
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"{driver['name']} (")


def test_describe_needs_a_name_that_exists():
    assert run("drivers", "describe").returncode == 2
    done = run("drivers", "describe", "bme28")
    assert done.returncode == 78
    assert 'did you mean "bme280"?' in done.stderr


def test_colour_is_for_terminals_alone(wrong):
    assert "\x1b" not in run("check", "--config", wrong).stderr

    def on_a_terminal(**environ: str) -> str:
        ours, theirs = open_terminal()
        try:
            subprocess.run(
                [sys.executable, "-m", "device_agent", "check", "--config", wrong],
                env={**os.environ, "TERM": "xterm", **environ},
                stderr=theirs,
                stdout=subprocess.DEVNULL,
                timeout=120,
                check=False,
            )
            return os.read(ours, 65_536).decode()
        finally:
            os.close(ours)
            os.close(theirs)

    assert "\x1b[31;1merror\x1b[0m: " in on_a_terminal(NO_COLOR="")
    assert "\x1b" not in on_a_terminal(NO_COLOR="1")
    assert "\x1b" not in on_a_terminal(NO_COLOR="", TERM="dumb")


def test_a_reader_that_leaves_early_is_no_fault():
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "device_agent", "card", "--config", str(GREENHOUSE)],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


FAILING = """
import sys
from device_agent import cli
from device_agent.errors import BusDenied, Rejected
from device_agent.cli.common import Unavailable, run_command
import signal, os
def interrupted():
    signal.raise_signal(signal.SIGINT)
    return 0
errors = {
    "denied": BusDenied("join the group i2c"),
    "refused": Rejected("not_allowed", "not you"),
    "rejected": Rejected("leased", "later"),
    "unavailable": Unavailable("no daemon"),
    "bug": KeyError("x"),
}
def command():
    if sys.argv[1] == "interrupt":
        return interrupted()
    raise errors[sys.argv[1]]
sys.exit(run_command(command))
"""


@pytest.mark.parametrize(
    ("word", "code", "message"),
    [
        ("denied", 77, "error: join the group i2c\n"),
        ("refused", 77, "error: not you\n"),
        ("rejected", 1, "error: later\n"),
        ("unavailable", 69, "error: no daemon\n"),
        ("bug", 1, "error: unexpected KeyError at <string>:20: 'x'; please report it\n"),
        ("interrupt", 128 + signal.SIGINT, ""),
    ],
)
def test_errors_end_in_a_sentence_and_their_code(word, code, message):
    done = subprocess.run(
        [sys.executable, "-c", FAILING, word], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (code, message)


def test_a_command_that_is_not_installed_hurts_no_other(tmp_path):
    """A copy of the package without a command's module still has the others."""
    import shutil

    shutil.copytree(
        ROOT / "device_agent", tmp_path / "device_agent", ignore=shutil.ignore_patterns("__pycache__")
    )
    (tmp_path / "device_agent" / "cli" / "check.py").unlink()
    environ = {"PYTHONPATH": str(tmp_path)}
    assert run("version", environ=environ, cwd=tmp_path).returncode == 0
    done = run("check", environ=environ, cwd=tmp_path)
    assert done.returncode == 2
    assert "check" in done.stderr


def test_help_is_a_word_too():
    assert run("help", "check").stdout == run("check", "--help").stdout
    assert run("help").returncode == 0


def test_check_takes_a_file():
    done = run("check", GREENHOUSE)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{GREENHOUSE} is right" in done.stdout


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    path = tmp_path / "mixed.toml"
    path.write_text(
        '[agent]\nname = "a"\n[state]\ndirectory = "state"\n'
        '[buses.pins]\nkind = "gpio"\nchip = "no such chip"\n'
        '[devices.board]\ndriver = "host"\n'
        '[devices.valve]\ndriver = "gpio-output"\nbus = "pins"\nline = 4\nsafe = false\n'
    )
    return path


def test_read_without_names_reads_all_and_says_what_it_cannot(mixed: Path):
    done = run("--config", mixed, "read", "--json")
    board, valve = json.loads(done.stdout)
    assert (done.returncode, board["device"], valve["device"]) == (1, "board", "valve")
    assert board["values"]["uptime"] > 0
    assert "opening it sets it to its safe value" in valve["error"]["message"]
    told = run("--config", mixed, "read")
    assert "valve  device valve: opening it sets it" in told.stdout
    assert run("--config", mixed, "read", "board").returncode == 0


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (("status", "--json"), 69, "unreachable"),
        (("read", "nothing", "--json"), 1, "unknown_device"),
        (("card", "--json", "--config", "/nowhere"), 78, "config"),
        (("read", "--json", "--jsn"), 2, "usage"),
        (("raed", "--json"), 2, "usage"),
        (("run", "--log", "json", "--config", "/nowhere"), 78, "config"),
        (("run", "--log=json", "--config", "/nowhere"), 78, "config"),
    ],
)
def test_what_a_program_reads_has_its_errors_as_objects(mixed: Path, words, code, error):
    done = run("--config", mixed, *words)
    told = json.loads(done.stderr)
    assert (done.returncode, told["error"]["code"], done.stdout) == (code, error, "")
    assert (told["event"], told["level"]) == ("error", "error")
    assert told["error"]["message"]
    assert told["time"]


def test_every_line_of_a_json_log_is_an_object(mixed: Path):
    """From the first to the last, of the daemon and of those that it starts, with a warning in between."""
    state = mixed.parent / "state"
    text = mixed.read_text().replace('[agent]\nname = "a"', '[agent]\nname = "a"\nskills = ["x"]')
    mixed.write_text(f'{text}[network]\nkind = "none"\n')
    command = [sys.executable, "-m", "device_agent", "--config", str(mixed), "run", "--log", "json"]
    log = mixed.parent / "log"
    with log.open("wb") as file:
        process = subprocess.Popen([*command, "--simulate"], stderr=file, stdout=file)
    try:
        until(lambda: '"ready"' in log.read_text(), "the daemon to be ready")
    finally:
        process.terminate()
        process.wait(60)
    told = [json.loads(line) for line in log.read_text().splitlines()]
    assert all({"event", "level", "time"} <= line.keys() for line in told)
    assert any("agent.skills is the old name" in line["event"] for line in told)
    state.chmod(0o777)
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 78
    assert [json.loads(line)["event"] for line in refused.stderr.splitlines()][-1] == "error"
