"""The Debian package: wheels for another machine in one tree, those missing named, scripts in place."""

import importlib.util
import shutil
import subprocess
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def build_deb() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_deb", ROOT / "packaging" / "build_deb.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wheel(folder: Path, name: str, tag: str, module: str) -> Path:
    """A wheel of one module; its content is its tag."""
    info, path = f"{name}-1.dist-info", folder / f"{name}-1-{tag}.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(module, tag)
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        file.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {tag}\n")
        file.writestr(f"{info}/RECORD", "")
    return path


def test_wheels_of_both_pythons_share_a_tree_and_missing_ones_are_named(
    build_deb: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setattr(build_deb, "needed", lambda wheel, folder: ["fast==1", "half==1", "none==1"])
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    ours = wheel(wheels, "ours", "py3-none-any", "ours.py")
    for short in ("311", "313"):
        tag = f"cp{short}-cp{short}-manylinux_2_28_armv7l"
        wheel(wheels, "fast", tag, f"fast.cpython-{short}.so")
    wheel(wheels, "half", "cp313-cp313-manylinux_2_17_armv7l", "half.cpython-313.so")
    wheel(wheels, "none", "cp313-cp313-manylinux_2_17_x86_64", "none.so")
    missing = build_deb.fill(tmp_path / "site", ours, "armhf")
    assert missing == ["armhf 3.11 half==1", "armhf 3.11 none==1", "armhf 3.13 none==1"]
    assert {path.name for path in (tmp_path / "site").iterdir() if path.is_file()} == {
        "ours.py", "fast.cpython-311.so", "fast.cpython-313.so", "half.cpython-313.so",
    }  # fmt: skip


def test_the_list_of_missing_wheels_is_kept_by_architecture(
    build_deb: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_deb, "MISSING", tmp_path / "missing")
    (tmp_path / "missing").write_text("armhf 3.11 b==1\narm64 3.11 a==1\n")
    build_deb.note_missing("armhf", ["armhf 3.13 c==1"])
    assert (tmp_path / "missing").read_text() == "arm64 3.11 a==1\narmhf 3.13 c==1\n"


def test_the_package_has_a_program_for_either_python_and_its_scripts(
    build_deb: ModuleType, tmp_path: Path
) -> None:
    if shutil.which("dpkg-deb") is None:
        pytest.skip("this is no Debian: there is no dpkg-deb")
    root = tmp_path / "root"
    site = root / build_deb.TREE / "lib" / "site-packages"
    (site / "library-1.dist-info").mkdir(parents=True)
    (site / "library.py").touch()
    build_deb.lay_out(root, ["arm64 3.11 a==1"])
    package = build_deb.package(root, "1.2", "arm64", tmp_path / "out")
    assert package.name == "device-agent_1.2_arm64.deb"
    subprocess.run(["dpkg-deb", "--raw-extract", package, tmp_path / "read"], check=True)
    control = (tmp_path / "read" / "DEBIAN" / "control").read_text()
    assert "Version: 1.2\nArchitecture: arm64\n" in control
    tree = tmp_path / "read" / "usr" / "lib" / "device-agent"
    for python in ("3.11", "3.13"):
        assert (tree / "lib" / f"python{python}" / "site-packages" / "library.py").is_file()
    assert (tree / "device-agent-packaged").exists()
    assert (tmp_path / "read" / "usr" / "bin" / "device-agent").is_symlink()
    doc = tmp_path / "read" / "usr" / "share" / "doc" / "device-agent"
    assert "library-1" in (doc / "copyright").read_text()
    assert (doc / "missing-wheels").read_text() == "arm64 3.11 a==1\n"
    for script in ("preinst", "postinst", "prerm", "postrm"):
        path = tmp_path / "read" / "DEBIAN" / script
        assert path.stat().st_mode & 0o111
        subprocess.run(["sh", "-n", path], check=True)
