"""What a user installs: a wheel with two packages, whose command, drivers and card rules work."""

import json
import os
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


def run(*command: object, cwd: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    (made,) = out.glob("*.whl")
    return made


@pytest.fixture
def fresh_python(tmp_path: Path) -> Path:
    """An interpreter with a site of its own that finds the dependencies, but not this checkout, below it."""
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    own = Path(run(python, "-c", "import site; print(site.getsitepackages()[0])", cwd=tmp_path).strip())
    # A path in a .pth file is searched last, and .pth files found there are not followed.
    (own / "dependencies.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return python


def test_the_wheel_holds_two_packages_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"device_agent", "device_agent_drivers"}
    assert "device_agent/card/agent-card.schema.json" in names
    assert "device_agent/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.parametrize("editable", [False, True], ids=["wheel", "editable"])
def test_an_installation_works_from_any_folder(wheel, fresh_python, tmp_path, editable):
    what = ["--no-build-isolation", "--editable", ROOT] if editable else [wheel]
    pip = [sys.executable, "-m", "pip", "--python", fresh_python, "install", "--no-deps", "--quiet"]
    run(*pip, "--disable-pip-version-check", *what, cwd=tmp_path)
    command = fresh_python.parent / "device-agent"
    assert run(command, "version", cwd=tmp_path).startswith("device-agent ")
    where = run(fresh_python, "-c", "import device_agent; print(device_agent.__file__)", cwd=tmp_path).strip()
    assert Path(where).is_relative_to(ROOT if editable else tmp_path)
    drivers = json.loads(run(command, "drivers", "--json", cwd=tmp_path))
    assert not [driver for driver in drivers if "error" in driver]
    for example in sorted((ROOT / "cards").glob("*.toml")):
        run(command, "check", "--config", example, cwd=tmp_path)
        run(command, "card", "--config", example, "--out", tmp_path / "card.json", cwd=tmp_path)
        expected = example.with_suffix(".card.json").read_text()
        assert (tmp_path / "card.json").read_text() == expected
