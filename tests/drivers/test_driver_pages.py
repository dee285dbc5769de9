"""`drivers describe`: complete for every driver, its example passes `check`, and the kept pages are true."""

import json
import re
from pathlib import Path

import pytest

from device_agent import registry
from device_agent.cli import main
from device_agent.cli.drivers import description, pages
from device_agent.config import load
from device_agent.driver import ActuatorConfig

DOCS = Path(__file__).parents[2] / "drivers" / "docs"
NAMES = [name for name in registry.names() if registry.origin(name).startswith("device-agent ")]


@pytest.mark.parametrize("name", NAMES)
def test_a_driver_is_described_completely(name: str, tmp_path: Path) -> None:
    told = description(name)
    assert [one["name"] for one in told["options"] if not one.get("description")] == []
    assert [one["name"] for one in told["points"] if not one.get("description")] == []
    assert [one["name"] for one in told["actions"] if not one["description"]] == []
    assert told["description"]
    model = registry.load(name).Config
    assert {one["name"] for one in told["options"]} >= model.model_fields.keys() - {"driver", "bus"}
    path = tmp_path / "agent.toml"
    path.write_text(f'[agent]\nname = "x"\n[state]\ndirectory = "/x"\n{told["example"]}\n')
    config = load(path)
    (device,) = config.devices
    if issubclass(model, ActuatorConfig) and config.drivable(device):
        assert config.safe(device)


def test_the_pages_are_true_to_the_models() -> None:
    wanted = pages()
    kept = {path.name: path.read_text(encoding="utf-8") for path in DOCS.glob("*.md")}
    stale = sorted(name for name in wanted.keys() | kept.keys() if wanted.get(name) != kept.get(name))
    assert not stale, f"run `make driver-docs`: {', '.join(stale)}"


def test_the_examples_of_the_page_on_drivers(tmp_path: Path) -> None:
    text = (DOCS.parents[1] / "docs" / "drivers.md").read_text(encoding="utf-8")
    blocks = [block for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL) if "[devices." in block]
    assert len(blocks) == 4
    names = iter(range(9))
    devices = re.sub(r'bus = "line"', lambda _: f'bus = "line{next(names)}"', "".join(blocks))
    buses = "".join(
        f'[buses.line{n}]\nkind = "serial"\nport = "/dev/ttyUSB{n}"\n' for n in range(next(names))
    )
    path = tmp_path / "agent.toml"
    path.write_text(f'[agent]\nname = "x"\n[state]\ndirectory = "/x"\n{buses}{devices}')
    assert set(load(path).devices) == {"climate", "battery", "meter", "counter"}


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drivers", "describe", "serial-lines"]) == 0
    shown = capsys.readouterr().out
    assert "each of points:" in shown
    assert "pattern = '^W +" in shown
    assert main(["drivers", "describe", "bme280", "--json"]) == 0
    assert "address = " not in json.loads(capsys.readouterr().out)["example"]
    assert main(["drivers", "describe", "bme280", "--markdown"]) == 0
    assert capsys.readouterr().out == (DOCS / "bme280.md").read_text(encoding="utf-8")
    assert main(["drivers", "--markdown", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "README.md").exists()
