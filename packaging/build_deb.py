"""Builds the Debian package of one architecture, on any: `build_deb.py --arch arm64`.

The package has our wheel and those that it needs, for the Pythons of Debian 12 and 13 side by side in one
tree: an upgrade of the distribution finds its Python's there, and a user need not know which Debian it is.
Nothing is fetched when it is installed.

No debhelper: nothing is compiled here, one machine builds for all architectures, and debhelper's steps for
shared objects (strip, shlibdeps) cannot read those of another.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parents[1]
MISSING = ROOT / "packaging" / "missing-wheels.txt"
MACHINES = {"amd64": "x86_64", "arm64": "aarch64", "armhf": "armv7l"}
PYTHONS = ("3.11", "3.13")
# Of Debian 12: no wheel may need a newer one.
GLIBC = (2, 36)
EXTRAS = "caller,plot"
TREE = "usr/lib/device-agent"
CONTROL = """\
Package: device-agent
Version: {version}
Architecture: {arch}
Maintainer: {maintainer}
Installed-Size: {size_kib}
Depends: python3 (>= 3.11), python3 (<< 3.12) | python3 (>= 3.13), python3 (<< 3.14),
 libc6 (>= {glibc}), libgcc-s1, libstdc++6, zlib1g, passwd, systemd, udev
Section: net
Priority: optional
Description: sensors and actuators of this board as an agent on the Blocks Network
 A daemon that owns the sensors and actuators of a Raspberry Pi or embedded Linux
 board, serves them to callers, and keeps actuators safe when something dies.
"""


def run(*words: object) -> str:
    """Its standard output. Raises CalledProcessError."""
    done = subprocess.run([str(word) for word in words], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def our_wheel(folder: Path) -> Path:
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    return next(folder.glob("device_agent-*.whl"))


def needed(wheel: Path, folder: Path) -> list[str]:
    """`name==version` of all that the wheel needs, in the versions that were tested.

    What exists as source only is made a wheel in `folder`, if that is one for every machine.
    """
    pip = [sys.executable, "-m", "pip", "--quiet"]
    ask = [*pip, "install", "--dry-run", "--ignore-installed", "--report", "-"]
    found = json.loads(run(*ask, "--constraint", ROOT / "constraints.txt", f"{wheel}[{EXTRAS}]"))["install"]
    names = {
        f"{one['metadata']['name'].lower()}=={one['metadata']['version']}": one["download_info"]["url"]
        for one in found
        if one["metadata"]["name"] != "device-agent"
    }
    for name, url in names.items():
        if not url.endswith(".whl"):
            run(*pip, "wheel", "--no-deps", "--wheel-dir", folder, name)
    return sorted(names)


def install(wanted: Sequence[str], folder: Path, arch: str, python: str, target: Path) -> list[str]:
    """Unpack these for another machine; returns those of which there is no wheel for it."""
    platforms = [f"manylinux_{GLIBC[0]}_{minor}_{MACHINES[arch]}" for minor in range(GLIBC[1], 4, -1)]
    platforms += [f"{old}_{MACHINES[arch]}" for old in ("manylinux2014", "manylinux2010", "manylinux1")]
    chosen = [word for platform in platforms for word in ("--platform", platform)]
    pip = [sys.executable, "-m", "pip", "--quiet", "install", "--no-deps", "--no-compile"]
    pip += [
        "--only-binary=:all:",
        "--implementation",
        "cp",
        "--python-version",
        python,
        "--find-links",
        str(folder),
    ]
    missing: list[str] = []
    while True:
        there = [one for one in wanted if one not in missing]
        command = [*pip, *chosen, "--target", str(target), *there]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode == 0:
            return missing
        lacks = re.search(r"No matching distribution found for (\S+)", done.stderr)
        if lacks is None or lacks[1] not in there:
            raise SystemExit(done.stderr)
        missing.append(lacks[1])


def fill(site: Path, wheel: Path, arch: str) -> list[str]:
    """Put everything into one site-packages: compiled modules of both Pythons have different names.

    Returns `arch python name==version` for each wheel that does not exist.
    """
    wanted, missing = needed(wheel, wheel.parent), []
    for python in PYTHONS:
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder)
            lacks = install([str(wheel), *wanted], wheel.parent, arch, python, target)
            missing += [f"{arch} {python} {one}" for one in lacks]
            shutil.rmtree(target / "bin", ignore_errors=True)
            shutil.copytree(target, site, dirs_exist_ok=True)
    return missing


def lay_out(root: Path, missing: Sequence[str]) -> None:
    """The rest of the tree: an environment for whichever Python the system has, and where it is used."""
    tree, site = root / TREE, root / TREE / "lib" / "site-packages"
    for python in PYTHONS:
        (tree / "lib" / f"python{python}").mkdir()
        (tree / "lib" / f"python{python}" / "site-packages").symlink_to("../site-packages")
    (tree / "bin").mkdir()
    (tree / "bin" / "python").symlink_to("/usr/bin/python3")
    (tree / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    (tree / "device-agent-packaged").write_text(
        "`service install` copies this program to where it is used.\n"
    )
    (root / "usr" / "bin").mkdir(parents=True)
    (root / "usr" / "bin" / "device-agent").symlink_to("/opt/device-agent/bin/device-agent")
    doc = root / "usr" / "share" / "doc" / "device-agent"
    doc.mkdir(parents=True)
    shutil.copy(ROOT / "CHANGELOG.md", doc / "changelog")
    (doc / "missing-wheels").write_text("".join(f"{one}\n" for one in missing))
    names = sorted(path.name.removesuffix(".dist-info") for path in site.glob("*.dist-info"))
    (doc / "copyright").write_text(
        dedent(f"""\
            device-agent is under the licence Apache-2.0, see /usr/share/common-licenses/Apache-2.0.
            The libraries below /{TREE}/lib/site-packages keep their own, which lie in NAME.dist-info
            there (METADATA, licenses): {", ".join(names)}.
            """)
    )


def package(root: Path, version: str, arch: str, out: Path) -> Path:
    """The finished package of what lies below `root`."""
    for path in root.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)
    debian = root / "DEBIAN"
    debian.mkdir()
    maintainer = run("git", "-C", ROOT, "log", "-1", "--format=%an <%ae>").strip()
    size_kib = sum(path.lstat().st_size for path in root.rglob("*")) // 1024
    glibc = ".".join(map(str, GLIBC))
    members = {
        "version": version,
        "arch": arch,
        "maintainer": maintainer,
        "size_kib": size_kib,
        "glibc": glibc,
    }
    (debian / "control").write_text(CONTROL.format(**members))
    for script in (ROOT / "packaging" / "debian").iterdir():
        shutil.copy(script, debian)
        (debian / script.name).chmod(0o755)
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"device-agent_{version}_{arch}.deb"
    run("dpkg-deb", "--root-owner-group", "-Zxz", "--build", root, path)
    return path


def note_missing(arch: str, missing: Sequence[str]) -> None:
    """Bring the list that lies beside this file up to date for one architecture."""
    kept = [line for line in MISSING.read_text().splitlines() if line.split()[0] != arch]
    MISSING.write_text("".join(f"{line}\n" for line in sorted([*kept, *missing])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", choices=MACHINES, required=True)
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    args = parser.parse_args()
    os.environ.setdefault("SOURCE_DATE_EPOCH", run("git", "-C", ROOT, "log", "-1", "--format=%ct").strip())
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        wheel = our_wheel(Path(folder))
        missing = fill(root / TREE / "lib" / "site-packages", wheel, args.arch)
        note_missing(args.arch, missing)
        lay_out(root, missing)
        version = re.fullmatch(r"device_agent-([^-]+)-.*", wheel.name)
        print(package(root, version[1] if version else "0", args.arch, args.out))
        for line in missing:
            print(f"without {line}: there is no wheel", file=sys.stderr)


if __name__ == "__main__":
    main()
