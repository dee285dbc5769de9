"""Every table of the contract: what it takes, its defaults, its bounds, and the sentence for each slip."""

from pathlib import Path

import pytest

from device_agent.errors import ConfigError

NAME = "The agent's name on the network; letters, digits, _"
FULL = """
[agent]
name = "greenhouse_7"
display_name = "Greenhouse 7"
description = "Climate and watering."
version = "1.0.0"
organization = "Example Farm"
tags = ["greenhouse", { id = "climate", name = "Climate", examples = ["How humid is it?"] }]
concurrency = 8
task_kinds = ["pipe", "request"]
[network]
kind = "blocks"
listing = "public"
billing_mode = "paid"
cdm_url = "http://127.0.0.1:8080/config.json"
api_base_url = "http://127.0.0.1:8080"
pubnub_origin = "127.0.0.1:8080"
pubnub_tls = false
api_key_file = "key"
publish_rate_hz = 0
[state]
directory = "/srv/state"
runtime_directory = "/srv/run"
[outbox]
max_bytes = "1 MiB"
commit_interval_s = 0.25
[history]
enabled = false
keep_days = 0.5
max_bytes = 1000000
[safety]
guard_timeout_s = 2
lease_idle_s = 30
[buses.pins]
kind = "gpio"
chip = "gpiochip0"
[devices.valve]
driver = "relay"
bus = "pins"
line = 27
safe = false
[streams.control]
direction = "bidirectional"
devices = ["valve"]
overflow = "refuse"
link_loss_grace_s = 3
[access]
read = ["org:o"]
drive = ["org:o", "user:u"]
[access.devices.valve]
drive = "anyone"
"""


def test_every_key_of_the_contract_is_an_attribute(load_text, tmp_path):
    config = load_text(FULL)
    assert config.agent.name == "greenhouse_7"
    assert [tag.id for tag in config.agent.tags] == ["greenhouse", "climate"]
    assert [tag.title for tag in config.agent.tags] == ["Greenhouse", "Climate"]
    assert config.agent.tags[1].examples == ("How humid is it?",)
    assert config.agent.task_kinds == ("request", "pipe")
    assert (config.network.listing, config.network.billing_mode) == ("public", "paid")
    assert (config.network.pubnub_origin, config.network.pubnub_tls) == ("127.0.0.1:8080", False)
    assert config.network.api_key_file == tmp_path / "key"
    assert config.network.publish_rate_hz == 0
    assert config.state.directory == Path("/srv/state")
    assert config.state.runtime_directory == Path("/srv/run")
    assert config.outbox.max_bytes == 2**20
    assert (config.history.enabled, config.history.keep_days, config.history.max_bytes) == (False, 0.5, 10**6)
    assert (config.safety.guard_timeout_s, config.safety.lease_idle_s) == (2, 30)
    assert config.devices["valve"].line == 27
    assert config.drivers["valve"].__name__ == "Relay"
    stream = config.streams["control"]
    assert (stream.affinity, stream.format, stream.overflow) == ("dedicated", "events", "refuse")
    assert (stream.inward, stream.outward, stream.link_loss_grace_s) == (True, True, 3)
    assert config.path == tmp_path / "agent.toml"
    assert config.safe("valve") == {"on": False}
    assert config.drivable("valve")


def test_the_least_that_loads_has_safe_defaults(load_text, tmp_path):
    config = load_text('[agent]\nname = "a"\n')
    assert config.agent.concurrency == 8
    assert config.agent.task_kinds == ("request", "pipe")
    assert (config.network.kind, config.network.listing, config.network.publish_rate_hz) == (
        "blocks",
        "private",
        12,
    )
    assert config.state.directory == Path("/var/lib/device-agent")
    assert config.state.runtime_directory == Path("/var/lib/device-agent/run")
    assert (config.outbox.max_bytes, config.outbox.commit_interval_s) == (32_000_000, 0.5)
    assert (config.history.enabled, config.history.keep_days) == (True, 366)
    assert (config.safety.guard_timeout_s, config.safety.lease_idle_s) == (1, 60)
    assert config.access.read == ("anyone",)
    assert config.access.drive == ()


def test_a_path_may_begin_in_the_user_s_home(load_text, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    state = load_text('[agent]\nname = "a"\n[state]\ndirectory = "~/x"\n').state
    assert (str(state.directory), str(state.runtime_directory)) == ("/home/ann/x", "/home/ann/x/run")
    with pytest.raises(ConfigError, match=r"state\.directory .* begins with the home of a user who has none"):
        load_text('[agent]\nname = "a"\n[state]\ndirectory = "~nobody_here/x"\n')


def test_paths_start_at_the_file_and_the_runtime_directory_is_systemds(load_text, tmp_path):
    text = '[agent]\nname = "a"\n[state]\ndirectory = "state"\n'
    assert load_text(text).state.directory == tmp_path / "state"
    assert load_text(text).state.runtime_directory == tmp_path / "state" / "run"
    systemd = load_text(text, RUNTIME_DIRECTORY="/run/device-agent:/run/other")
    assert systemd.state.runtime_directory == Path("/run/device-agent")


def test_a_configuration_cannot_be_changed(load_text):
    config = load_text(FULL)
    with pytest.raises(AttributeError):
        config.agent = None
    with pytest.raises(ValueError, match="frozen"):
        config.agent.name = "other"


def test_who_may(load_text):
    access = load_text(FULL).access
    assert access.allows("read", "valve", {"org:o"})
    assert not access.allows("read", "valve", {"user:stranger"})
    assert access.allows("drive", "valve", set())
    assert access.allows("drive", "door", {"user:u", "org:x"})
    assert not access.allows("drive", "door", {"user:x"})


def test_skills_are_tags_with_a_warning(load_text, problems):
    config = load_text('[agent]\nname = "a"\nskills = ["x"]\n')
    assert [tag.id for tag in config.agent.tags] == ["x"]
    assert "agent.skills is the old name of agent.tags: rename it" in config.warnings
    (both,) = problems('[agent]\nname = "a"\nskills = ["x"]\ntags = ["x"]\n')
    assert "keep tags" in both


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[agent]\nname = "no-hyphen"\n', f'agent.name = "no-hyphen" must match ^[a-zA-Z0-9_]+$. {NAME}'),
        ('[agent]\nname = ""\n', f'agent.name = "" must match ^[a-zA-Z0-9_]+$. {NAME}'),
        ("[agent]\n", f"agent.name is missing: add it. {NAME}"),
        ('[agent]\nname = "a"\nconcurrency = -1\n', "agent.concurrency = -1 must be at least 0"),
        (
            '[agent]\nname = "a"\nconcurrency = "8"\n',
            'agent.concurrency = "8" must be a whole number, without quotes',
        ),
        ('[agent]\nname = "a"\nconcurrency = true\n', "agent.concurrency = true must be a whole number"),
        (
            '[agent]\nname = "a"\nconcurency = 1\n',
            'agent.concurency is not a known key: did you mean "concurrency"?',
        ),
        (
            '[agent]\nname = "a"\ntags = ["A b"]\n',
            'agent.tags.0 = "A b" must match ^[a-z0-9][a-z0-9._-]*$',
        ),
        ('[agent]\nname = "a"\ntags = ["a", "a"]\n', "must name each tag once, but has a twice"),
        ('[agent]\nname = "a"\ntask_kinds = []\n', "agent.task_kinds = [] is too short: at least 1"),
        (
            '[agent]\nname = "a"\ntask_kinds = ["pip"]\n',
            'agent.task_kinds.0 = "pip" must be "request" or "pipe"; did you mean "pipe"?',
        ),
        (
            '[network]\nkind = "mqtt"\n',
            'network.kind = "mqtt" is reserved for a later release; write "blocks" or "none"',
        ),
        ('[network]\nkind = "http"\n', 'network.kind = "http" must be "blocks"'),
        ('[network]\napi_key = "bk_1"\n', 'network.api_key is not a known key: did you mean "api_key_file"?'),
        ('[network]\ntoken = "bk_1"\n', "network.token is not a known key: secrets are never in this file"),
        ("[network]\npublish_rate_hz = -1\n", "network.publish_rate_hz = -1 must be at least 0"),
        ('[network]\ncdm_url = "ftp://x"\n', 'network.cdm_url = "ftp://x" must match'),
        ('[outbox]\nmax_bytes = "255 kB"\n', "outbox.max_bytes = 255 kB must be at least 256 kB"),
        ('[outbox]\nmax_bytes = "lots"\n', 'outbox.max_bytes = "lots" must be a size such as "32 MB"'),
        ("[outbox]\ncommit_interval_s = nan\n", "outbox.commit_interval_s = nan must be a finite number"),
        ("[history]\nkeep_days = inf\n", "history.keep_days = inf must be a finite number"),
        ("[history]\nmax_bytes = 99999999999999999999999\n", "history.max_bytes does not fit 64 bits"),
        ("[safety]\nguard_timeout_s = 0\n", "safety.guard_timeout_s = 0 must be at least 0.1"),
        ('[state]\ndirectory = "a\\u0000b"\n', "must be a path"),
        ("[acces]\n", 'acces is not a known key: did you mean "access"?'),
        ('[access]\ndrive = "org:x"\n', 'access.drive = "org:x" must be "anyone" or a list'),
        ('[access]\ndrive = ["x"]\n', 'access.drive.0 = "x" must match'),
        ('[access.devices.x]\nread = "anyone"\n', "access.devices.x is not a device: remove the table"),
    ],
)
def test_each_slip_has_its_sentence(problems, text, sentence):
    found = problems(text)
    assert [problem for problem in found if sentence in problem], found
    assert len(found) == 1, found


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("agent = 3", "agent = 3 must be a table: write [agent]"),
        ("devices = []", "devices = [] must hold tables: write [devices.NAME]"),
        ("devices.x = 4", "devices.x = 4 must be a table: write [devices.x]"),
        ("buses.x = 4", "buses.x = 4 must be a table: write [buses.x]"),
        ('[devices."Big"]', 'devices."Big" is no name: use up to 63 lower-case letters'),
        ('[streams."a\\nb"]', 'streams."a\\nb" is no name'),
        ("[buses.x]", "buses.x.kind is missing: add one of i2c, gpio, serial, mqtt, spi, w1"),
        ('[buses.x]\nkind = "can"', 'buses.x.kind = "can" must be one of "i2c", "gpio", "serial", "mqtt", '),
        ("[devices.x]", 'devices.x.driver is missing: add driver = "…"'),
        ('[devices.x]\ndriver = "nope"', 'devices.x.driver "nope" is not installed'),
    ],
)
def test_tables_of_the_wrong_shape(load_text, text, sentence):
    with pytest.raises(ConfigError) as caught:
        load_text(text)
    assert [problem for problem in caught.value.problems if problem.startswith(sentence)], (
        caught.value.problems
    )


def test_all_faults_at_once(problems, fakes):
    found = problems(
        """
        [agent]
        nam = "a"
        concurrency = -1
        [outbox]
        max_bytes = "1 kB"
        [buses.i]
        kind = "i2c"
        [devices.t]
        driver = "thermo"
        bus = "j"
        adress = 0x48
        mode = "fst"
        [devices.u]
        driver = "nope"
        [streams.s]
        direction = "sideways"
        devices = ["v"]
        """
    )
    assert set(found) == {
        f"agent.name is missing: add it. {NAME}",
        'agent.nam is not a known key: did you mean "name"?',
        "agent.concurrency = -1 must be at least 0",
        "outbox.max_bytes = 1 kB must be at least 256 kB",
        'buses.i.device is missing: add it. "/dev/i2c-1", or an adapter\'s name.',
        'devices.t.adress is not a known key: did you mean "address"?',
        'devices.t.mode = "fst" must be "slow" or "fast"; did you mean "fast"?',
        f'devices.u.driver "nope" is not installed: Installed are {", ".join(fakes)}',
        'streams.s.direction = "sideways" must be "outbound", "inbound" or "bidirectional"',
    }


def test_a_union_is_explained_once(problems):
    text = '[buses.i]\nkind = "i2c"\ndevice = "/dev/i2c-1"\n[devices.t]\ndriver = "thermo"\nbus = "i"\n'
    assert problems(text + "window = 3\n") == (
        "devices.t.window = 3 must be text in quotes or must be a list",
    )
    assert problems(text + 'window = [1, "b"]\n') == ('devices.t.window.1 = "b" must be a whole number',)


def test_addresses_are_shown_as_the_sheet_has_them(problems):
    text = '[buses.i]\nkind = "i2c"\ndevice = "/dev/i2c-1"\n[devices.t]\ndriver = "thermo"\nbus = "i"\n'
    assert problems(text + "address = 0x76\n") == ("devices.t.address = 0x76 must be at most 0x4b",)


def test_one_of_a_few_addresses_is_shown_so_too(problems):
    text = '[buses.i]\nkind = "i2c"\ndevice = "/dev/i2c-1"\n[devices.t]\ndriver = "fan"\nbus = "i"\n'
    text += "safe = { speed = 0, steps = 0, label = 'x' }\n"
    assert problems(text + "address = 20\n") == ("devices.t.address = 0x14 must be 0x20 or 0x21",)
    assert problems(text + 'address = "0x21"\n') == (
        'devices.t.address = "0x21" must be 0x20 or 0x21, without quotes',
    )


def test_how_many(problems):
    assert problems("".join(f"[devices.d{n}]\n" for n in range(257))) == (
        "devices has 257 tables: at most 256 are allowed",
    )
    assert problems("".join(f"[buses.d{n}]\n" for n in range(65)))[0].startswith("buses has 65 tables")
    assert problems("".join(f"[streams.d{n}]\n" for n in range(33)))[0].startswith("streams has 33 tables")
