"""The account's commands as a script uses them, against the stand-in: exit codes, one sentence, --json."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from device_agent.account.credentials import Credentials, save
from device_agent.testing.network import NetworkThread, Settings
from support.terminal import open_terminal

CONFIG = """
[agent]
name = "greenhouse_7"
display_name = "Greenhouse 7"
version = "1.0.0"
{agent}
[network]
cdm_url = "{cdm_url}"
[devices.host]
driver = "host"
[streams.telemetry]
direction = "outbound"
devices = ["host"]
"""


@pytest.fixture(scope="module")
def net() -> Iterator[NetworkThread]:
    with NetworkThread(settings=Settings(auto_register=False, enforce_private=True)) as host:
        yield host


class Shell:
    """A home folder, a configuration, and the commands in it."""

    def __init__(self, folder: Path, net: NetworkThread) -> None:
        self.net = net
        self.home = folder / "home"
        self.config = folder / "agent.toml"
        self.credentials = self.home / ".config" / "blocks" / "credentials.json"
        self.write()

    def write(self, agent: str = "") -> None:
        self.config.write_text(CONFIG.format(cdm_url=self.net.net.cdm_url, agent=agent))

    @property
    def environment(self) -> dict[str, str]:
        base = {k: v for k, v in os.environ.items() if not k.startswith(("BLOCKS_", "XDG_", "DEVICE_AGENT"))}
        return {**base, "HOME": str(self.home)}

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "device_agent", "--config", str(self.config), *words]

    def __call__(self, *words: str, text: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.command(*words),
            input=text,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**self.environment, **environ},
        )
        assert "Traceback" not in done.stderr
        return done

    def entry(self, name: str = "greenhouse_7") -> Any:
        return self.net.net.registry.agents.get(name)


@pytest.fixture
def shell(net: NetworkThread, tmp_path: Path) -> Iterator[Shell]:
    made = Shell(tmp_path, net)
    yield made
    net.call(net.net.registry.remove, "greenhouse_7")
    net.call(net.net.heal)


@pytest.fixture
def owner(shell: Shell) -> Shell:
    save(shell.credentials, Credentials("bk_owner"))
    return shell


# -- login --------------------------------------------------------------------------------------------------


def test_a_login_from_standard_input_is_kept_for_its_owner_alone(shell: Shell) -> None:
    done = shell("login", "--api-key-stdin", text="bk_owner\nand more\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert "org_owner" in done.stdout
    assert "bk_owner" not in done.stdout
    assert shell.credentials.stat().st_mode & 0o777 == 0o600
    assert shell.credentials.parent.stat().st_mode & 0o777 == 0o700
    assert json.loads(shell.credentials.read_text()) == {
        "schema_version": 2,
        "api_key": "bk_owner",
        "org_id": "org_owner",
        "org_name": "org_owner",
    }
    told = json.loads(shell("whoami", "--json").stdout)
    assert (told["orgId"], told["agentCount"], told["source"]) == ("org_owner", 0, str(shell.credentials))
    assert "org_owner" in shell("whoami").stdout


def test_a_login_from_a_file_and_the_way_out(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("bk_someone\n")
    assert shell("login", "--api-key-file", str(file)).returncode == 0
    assert "removed" in shell("logout").stdout
    assert not shell.credentials.exists()
    assert shell("logout").returncode == 0
    lost = shell("whoami")
    assert (lost.returncode, "device-agent login" in lost.stderr) == (77, True)


def test_a_key_that_the_network_refuses_is_not_kept(shell: Shell) -> None:
    done = shell("login", "--api-key-stdin", text="wrong_key\n")
    assert (done.returncode, done.stdout) == (77, "")
    assert done.stderr == "error: the network refuses this API key; nothing was stored\n"
    assert not shell.credentials.exists()
    assert shell("login", "--api-key-stdin", text="two words\n").returncode == 78
    assert shell("login", "--api-key-file", "/nowhere").returncode == 1


def test_a_network_that_cannot_say_is_no_reason_not_to_log_in(shell: Shell) -> None:
    done = shell("login", "--api-key-stdin", text="bk_owner\n", BLOCKS_BACKEND_URL="http://127.0.0.1:9")
    assert done.returncode == 0
    assert "could not be checked" in done.stderr
    assert "not checked" in done.stdout
    assert shell("login", "--no-check", text="bk_owner\n").returncode == 0


def test_a_key_typed_in_a_terminal_is_not_shown(shell: Shell) -> None:
    ours, theirs = open_terminal()
    with subprocess.Popen(
        shell.command("login"),
        env=shell.environment,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
        start_new_session=True,
    ) as process:
        seen = b""
        while b"API key: " not in seen:
            seen += os.read(ours, 1000)
        os.write(ours, b"bk_typed\n")
        out, _ = process.communicate(timeout=60)
    os.close(theirs)
    os.close(ours)
    assert process.returncode == 0
    assert "org_typed" in out
    assert json.loads(shell.credentials.read_text())["api_key"] == "bk_typed"


@pytest.mark.parametrize(
    ("body", "mode", "code", "words"),
    [
        ('{"schema_version": 1, "api_key": "bk_x"}', 0o600, 78, "login` again"),
        ('{"schema_version": 3, "api_key": "bk_x"}', 0o600, 78, "upgrade"),
        ('{"schema_version": 2, "api_key": 7}', 0o600, 78, "damaged"),
        ("{", 0o600, 78, "damaged"),
        ('{"schema_version": 2, "api_key": "bk_x"}', 0o644, 78, "chmod 600"),
        ('{"schema_version": 2, "api_key": "bk_x", "expires_at": "2020-01-01T00:00:00Z"}', 0o600, 77, "2020"),
        ('{"schema_version": 2, "api_key": "bk_x", "expires_at": "0001-01-01T00:00:00Z"}', 0o600, 0, ""),
    ],
)
def test_a_credentials_file_that_cannot_serve_is_explained(
    shell: Shell, body: str, mode: int, code: int, words: str
) -> None:
    shell.credentials.parent.mkdir(parents=True)
    shell.credentials.write_text(body)
    shell.credentials.chmod(mode)
    done = shell("whoami")
    assert (done.returncode, words in done.stderr) == (code, True)


def test_the_environment_comes_before_the_login(owner: Shell) -> None:
    told = json.loads(owner("whoami", "--json", BLOCKS_API_KEY="bk_other").stdout)
    assert (told["orgId"], told["source"]) == ("org_other", "$BLOCKS_API_KEY")


def test_a_revoked_key_says_what_to_do(owner: Shell) -> None:
    owner.net.call(owner.net.net.revoke_api_key, "bk_owner")
    try:
        for words in (("whoami",), ("publish", "--yes"), ("unpublish", "--yes")):
            done = owner(*words)
            assert (done.returncode, "device-agent login" in done.stderr) == (77, True)
    finally:
        owner.net.call(owner.net.net.restore_api_key, "bk_owner")


# -- publish ------------------------------------------------------------------------------------------------


def test_publish_shows_asks_and_publishes(owner: Shell) -> None:
    dry = owner("publish", "--dry-run")
    assert (dry.returncode, owner.entry()) == (0, None)
    assert "new agent" in dry.stdout
    assert "Greenhouse 7  (greenhouse_7 1.0.0)" in dry.stdout
    unasked = owner("publish")
    assert (unasked.returncode, owner.entry()) == (2, None)
    assert "--yes" in unasked.stderr
    done = owner("publish", "--yes")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].endswith("/agents/greenhouse_7")
    entry = owner.entry()
    assert (entry.listing, entry.billing_mode, entry.owner_org) == ("private", "free", "org_owner")
    assert entry.card["identity"]["displayName"] == "Greenhouse 7"


def test_publish_again_shows_what_changes(owner: Shell) -> None:
    assert owner("publish", "--yes").returncode == 0
    same = owner("publish")
    assert (same.returncode, same.stdout.splitlines()[-1]) == (0, "nothing to publish")
    owner.write('tags = ["greenhouse"]\nconcurrency = 3')
    told = json.loads(owner("publish", "--dry-run", "--json", "--listing", "public").stdout)
    assert told["new"] is False
    assert "~ listing: private → public" in told["changes"]
    assert "~ runtime.concurrency: 8 → 3" in told["changes"]
    assert json.loads(owner("publish", "--yes", "--json").stdout)["published"] is True
    assert owner.entry().card["runtime"]["concurrency"] == 3


def test_a_paid_agent_has_prices_within_the_limits_and_accepted_terms(owner: Shell) -> None:
    wrong = owner(
        *("publish", "--yes", "--billing-mode", "paid", "--price-per-task", "30", "--free-minutes", "31")
    )
    assert (wrong.returncode, owner.entry()) == (2, None)
    assert wrong.stderr.splitlines() == [
        "error: --price-per-task 30 is outside 0.0001 to 25.00",
        "error: --free-minutes 31 is outside 0 to 30",
        "error: a paid agent needs --accept-terms: you accept the network's terms for paid providers",
    ]
    paid = ("publish", "--yes", "--billing-mode", "paid", "--accept-terms")
    prices = ("--price-per-task", "0.05", "--price-per-minute", "0.20", "--free-tasks", "10")
    done = owner(*paid, *prices)
    assert done.returncode == 0, done.stderr
    assert "$0.05 a task, $0.20 a minute, 10 tasks free" in done.stdout
    assert owner.entry().prices == {
        "pricePerTask": "0.05",
        "pricePerMinute": "0.20",
        "freeTasksPerConsumer": 10,
    }
    free = owner("publish", "--yes", "--billing-mode", "free")
    assert free.returncode == 1
    assert "stays paid" in free.stderr


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("--price-per-task", "0.1"), 2, "--price-per-task is for paid agents"),
        (("--billing-mode", "paid", "--accept-terms"), 2, "needs --price-per-task, --price-per-minute"),
        (("--billing-mode", "paid", "--price", "1"), 1, "use --price-per-task and --price-per-minute"),
        (("--price", "much"), 2, "'much' is no price"),
        (("--price", "NaN"), 2, "'NaN' is no price"),
        (("--free-tasks", "-1"), 2, "no number of free units"),
        (("--listing", "secret"), 2, "--listing"),
    ],
)
def test_what_cannot_be_published_is_said(
    owner: Shell, words: tuple[str, ...], code: int, sentence: str
) -> None:
    done = owner("publish", "--yes", *words)
    assert (done.returncode, owner.entry()) == (code, None)
    assert sentence in done.stderr


def test_one_price_goes_to_the_one_kind_of_task(owner: Shell) -> None:
    owner.write('task_kinds = ["pipe"]')
    words = ("publish", "--yes", "--billing-mode", "paid", "--price", "0.20", "--free-units", "5")
    assert owner(*words, "--accept-terms").returncode == 0
    assert owner.entry().prices == {"pricePerMinute": "0.20", "freeMinutesPerConsumer": 5}


def test_the_documented_limits_serve_when_the_service_does_not_tell_them(owner: Shell) -> None:
    owner.net.call(owner.net.net.add_fault, "status", "/api/v1/pricing/limits", status=503)
    done = owner(*("publish", "--yes", "--billing-mode", "paid", "--price-per-task", "26", "--accept-terms"))
    assert (done.returncode, "0.0001 to 25.00" in done.stderr) == (2, True)


def test_what_belongs_to_others_stays_theirs(owner: Shell) -> None:
    owner.write()
    assert owner("publish", "--yes").returncode == 0
    thief = owner("publish", "--yes", BLOCKS_API_KEY="bk_thief")
    assert (thief.returncode, "another organisation" in thief.stderr) == (77, True)
    assert owner("unpublish", "--yes", BLOCKS_API_KEY="bk_thief").returncode == 1
    assert owner.entry().owner_org == "org_owner"


def test_a_service_in_trouble_is_one_sentence(owner: Shell) -> None:
    owner.net.call(owner.net.net.add_fault, "status", "/api/v1/registry/agents", status=503)
    done = owner("publish", "--yes")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "503" in done.stderr
    gone = owner("publish", "--yes", BLOCKS_BACKEND_URL="http://127.0.0.1:9")
    assert (gone.returncode, "is there a network" in gone.stderr) == (1, True)


def test_unpublish_asks_and_deletes(owner: Shell) -> None:
    assert owner("publish", "--yes").returncode == 0
    assert (owner("unpublish").returncode, owner.entry() is None) == (2, False)
    done = owner("unpublish", "--yes", "--json")
    assert json.loads(done.stdout) == {"agent": "greenhouse_7", "deleted": True}
    assert owner.entry() is None
    again = owner("unpublish", "--yes")
    assert (again.returncode, "there is no agent greenhouse_7" in again.stderr) == (1, True)


def answered(shell: Shell, answer: bytes, *words: str) -> tuple[int, str]:
    """A command on a terminal, its question answered."""
    ours, theirs = open_terminal()
    with subprocess.Popen(
        shell.command(*words),
        env=shell.environment,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        os.write(ours, answer)
        out, _ = process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    return process.returncode, out


def test_a_person_is_asked(owner: Shell) -> None:
    code, out = answered(owner, b"n\n", "publish")
    assert (code, owner.entry()) == (1, None)
    assert "Publish greenhouse_7? [y/N]" in out
    assert answered(owner, b"yes\n", "publish")[0] == 0
    assert owner.entry() is not None


# -- invite, dashboard --------------------------------------------------------------------------------------


def test_invite_shows_the_link(owner: Shell) -> None:
    assert owner("publish", "--yes").returncode == 0
    done = owner("invite", "--email", "ann@example.com")
    assert done.returncode == 0
    assert "the link to pass on: http://127.0.0.1" in done.stdout
    told = json.loads(owner("invite", "--org", "example-farm", "--json").stdout)
    assert (told["targetOrgSlug"], told["inviteUrl"][:7]) == ("example-farm", "http://")


def test_a_link_the_list_and_the_way_back(owner: Shell) -> None:
    assert owner("publish", "--yes").returncode == 0
    link = json.loads(owner("invite", "--link", "--json").stdout)
    assert link["inviteUrl"].startswith("http://127.0.0.1")
    assert owner("invite", "--email", "ann@example.com").returncode == 0
    assert "ann@example.com" in owner("invite", "--list").stdout
    told = json.loads(owner("invite", "--list", "--json").stdout)
    assert (len(told["invitations"]) >= 2, told["grants"]) == (True, [])
    none = owner("invite", "--revoke", "gr_nothing")
    assert (none.returncode, "has no grant gr_nothing" in none.stderr) == (1, True)


def test_who_cannot_be_invited(owner: Shell) -> None:
    assert owner("invite", "--email", "nobody").returncode == 2
    assert owner("invite").returncode == 2
    missing = owner("invite", "--email", "ann@example.com")
    assert (missing.returncode, "publish it first" in missing.stderr) == (1, True)
    assert owner("publish", "--yes", "--listing", "public").returncode == 0
    public = owner("invite", "--email", "ann@example.com")
    assert (public.returncode, "Only private agents" in public.stderr) == (1, True)


def test_dashboard_prints_the_page(shell: Shell) -> None:
    assert shell("dashboard").stdout.strip().endswith("/agents/greenhouse_7")
    named = shell("dashboard", "other", "--json", BLOCKS_DASHBOARD_URL="https://dash.example/")
    assert json.loads(named.stdout)["url"] == "https://dash.example/agents/other"
    assert shell("dashboard", "a/b").returncode == 1


def test_init_knows_who_is_me(owner: Shell, tmp_path: Path) -> None:
    path = tmp_path / "made.toml"
    words = ("init", "--yes", "--out", str(path), "--drive", "me")
    done = owner(*words, BLOCKS_CDM_URL=owner.net.net.cdm_url)
    assert done.returncode == 0, done.stderr
    whose = json.loads(owner("whoami", "--json").stdout)["orgId"]
    assert f'drive = ["org:{whose}"]' in path.read_text()
    owner.credentials.unlink()
    unknown = owner(*words, "--force", BLOCKS_CDM_URL=owner.net.net.cdm_url)
    assert (unknown.returncode, "nobody is known as me: nobody is logged in" in unknown.stderr) == (2, True)
