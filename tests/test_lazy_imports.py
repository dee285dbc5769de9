"""Light commands load nothing heavy: `check` runs on a laptop without a hardware library, and at once."""

import json
import subprocess
import sys

import pytest

HEAVY = ["smbus2", "serial", "gpiozero", "gpiod", "lgpio", "aiohttp", "pubnub", "httpx", "paho", "requests"]

CONFIG = """
[agent]
name = "lazy"
[buses.pins]
kind = "gpio"
chip = "gpiochip0"
[devices.lamp]
driver = "gpio-output"
bus = "pins"
line = 4
safe = false
[devices.host]
driver = "host"
[access]
drive = "anyone"
[streams.all]
direction = "bidirectional"
devices = ["lamp", "host"]
"""


def loaded_by(code: str, *arguments: str) -> set[str]:
    """The names in sys.modules of a fresh interpreter after this code."""
    report = f"{code}\nimport json, sys\nsys.stderr.write(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", report, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr))


def heavy(loaded: set[str]) -> list[str]:
    return [name for name in HEAVY if name in loaded]


@pytest.mark.parametrize(
    "module",
    [
        "device_agent",
        "device_agent.driver",
        "device_agent.config",
        "device_agent.registry",
        "device_agent.card",
        "device_agent.cli",
        "device_agent.testing",
    ],
)
def test_importing_it_loads_no_hardware_and_no_network(module):
    assert heavy(loaded_by(f"import {module}")) == []


@pytest.mark.parametrize("command", ["version", "check", "card", "drivers"])
def test_a_command_that_touches_no_hardware_loads_none(command, tmp_path):
    path = tmp_path / "agent.toml"
    path.write_text(CONFIG)
    code = "import sys\nfrom device_agent.cli import main\nassert main(sys.argv[1:]) == 0"
    assert heavy(loaded_by(code, "--config", str(path), command)) == []


def test_who_delegates_nothing_does_not_load_it():
    loaded = loaded_by("import device_agent.agent")
    assert not [name for name in loaded if name.startswith("device_agent.delegation")]
    assert "device_agent.network.sessions_api" not in loaded


def test_who_has_no_page_and_no_broker_does_not_load_them():
    loaded = loaded_by("import device_agent.agent")
    assert not [name for name in loaded if name.startswith(("device_agent.page", "aiohttp"))]
    assert not [name for name in loaded if name.startswith(("device_agent.mqtt", "device_agent.tasks.local"))]
    # Metrics that nobody scrapes cost nothing either.
    loaded = loaded_by("import device_agent.page.server")
    assert not [name for name in loaded if name.startswith("prometheus")]


DAEMON = """
import importlib, pkgutil
from device_agent import schema
schema.hold_only()
import device_agent.agent, device_agent.delegation.delegations, device_agent_drivers
for module in pkgutil.iter_modules(device_agent_drivers.__path__):
    importlib.import_module(f"device_agent_drivers.{module.name}")
"""


def test_neither_the_daemon_nor_a_bundled_driver_needs_pydantic():
    """`from device_agent.schema import Field`: what another process has checked needs no models."""
    assert not {"pydantic", "pydantic_core"} & loaded_by(DAEMON)


def test_the_version_needs_neither_models_nor_event_loop():
    code = "from device_agent.cli import main\nassert main(['version']) == 0"
    loaded = loaded_by(code)
    assert not {"pydantic", "asyncio", "structlog"} & loaded


def test_checking_loads_only_the_drivers_that_are_named(tmp_path):
    path = tmp_path / "agent.toml"
    path.write_text(CONFIG)
    code = "import sys\nfrom device_agent.cli import main\nassert main(sys.argv[1:]) == 0"
    loaded = loaded_by(code, "--config", str(path), "check")
    assert {"device_agent_drivers.gpio_output", "device_agent_drivers.host"} <= loaded
    assert (
        not {
            "device_agent_drivers.bme280",
            "device_agent_drivers.serial_lines",
            "device_agent_drivers.mqtt_topic",
        }
        & loaded
    )


def test_listing_drivers_by_name_imports_none():
    loaded = loaded_by("from device_agent import registry\nassert 'host' in registry.names()")
    assert not [name for name in loaded if name == "drivers" or name.startswith("drivers.")]
