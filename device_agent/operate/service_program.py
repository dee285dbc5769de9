"""Where the service's program lies: two places that take turns, and a link to the one in use.

A new program is made whole beside the one that runs; the link changes in one step, and back in one.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path

import device_agent
from device_agent.errors import AgentError

PROGRAM = "/opt/device-agent"
PLACES = (f"{PROGRAM}.a", f"{PROGRAM}.b")
# What the units hide from the service.
HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")
# The program of a distribution package has this file: it is replaced while the service runs, and so copied.
PACKAGED = "device-agent-packaged"

Run = Callable[[Sequence[str]], int]


def run_command(words: Sequence[str]) -> int:
    """Its exit code; 127 where there is no such command."""
    try:
        return subprocess.run(words, check=False).returncode
    except FileNotFoundError:
        return 127


def unit_files() -> Path:
    """The folder `systemd`: in the package, or beside it in a checkout."""
    package = Path(device_agent.__file__).parent
    inside = package / "systemd"
    return inside if inside.is_dir() else package.parent / "systemd"


def program_files() -> list[Path]:
    """What a copy of this program's site-packages consists of, its own two packages first."""
    site = Path(sysconfig.get_path("purelib"))
    own = [Path(device_agent.__file__).parent]
    if own[0].parent != site:  # a checkout; what leads there is left out below
        own.append(own[0].parent / "drivers" / "device_agent_drivers")
    names = {path.name for path in own}
    return own + [path for path in site.iterdir() if path.name not in names and path.suffix != ".pth"]


def needs_copy() -> bool:
    """Whether the service cannot run this program where it lies."""
    prefix = Path(sys.prefix)
    outside = not program_files()[0].resolve().is_relative_to(prefix.resolve())
    return outside or str(prefix).startswith(HIDDEN) or (prefix / PACKAGED).exists()


def copy_program(root: Path, run: Run) -> str:
    """A whole copy of this program in the place that is not in use, which is returned.

    Raises AgentError, OSError.
    """
    link = root / PROGRAM.lstrip("/")
    if link.exists() and not link.is_symlink():
        raise AgentError(
            f"{PROGRAM} is not a copy of ours: run {PROGRAM}/bin/device-agent service install, or move it"
        )
    place = next(one for one in PLACES if one != in_use(root))
    target = root / place.lstrip("/")
    shutil.rmtree(target, ignore_errors=True)
    if (Path(sys.prefix) / PACKAGED).exists():
        shutil.copytree(sys.prefix, target, symlinks=True, copy_function=_linked)
        (target / PACKAGED).unlink()
    else:
        _copy_environment(target, run)
    command = target / "bin" / "device-agent"
    command.unlink(missing_ok=True)
    # The place and not the link: a program that runs finds its own modules while the link changes.
    command.write_text(
        f"#!{place}/bin/python\nimport sys\nfrom device_agent.cli import main\nsys.exit(main())\n"
    )
    command.chmod(0o755)
    # The service may not write here, and a slow board takes long to compile.
    run([str(target / "bin" / "python"), "-m", "compileall", "-q", "-j0", str(target / "lib")])
    os.sync()
    return place


def _linked(source: str, target: str) -> None:
    """The same file under another name where that is possible: what replaces the one leaves the other."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _copy_environment(target: Path, run: Run) -> None:
    base = getattr(sys, "_base_executable", sys.executable)
    if run([base, "-m", "venv", "--without-pip", str(target)]) != 0:
        raise AgentError(f"{target} could not be made: install python3-venv")
    site = next(target.glob("lib/python3*/site-packages"))
    for path in program_files():
        if path.is_dir():
            shutil.copytree(path, site / path.name)
        else:
            shutil.copy2(path, site / path.name)
    if not (site / "device_agent" / "systemd").exists():
        shutil.copytree(unit_files(), site / "device_agent" / "systemd")


def use(root: Path, place: str) -> None:
    """From now on the service starts the program of this place."""
    link = root / PROGRAM.lstrip("/")
    fresh = link.with_name(f"{link.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(Path(place).name)
    fresh.replace(link)


def in_use(root: Path) -> str:
    """The place that the link names; "" without one."""
    link = root / PROGRAM.lstrip("/")
    return str(Path(PROGRAM).with_name(os.readlink(link))) if link.is_symlink() else ""


def remove_programs(root: Path) -> bool:
    """Whether there was a copy of ours. Nothing else is ever removed."""
    link, found = root / PROGRAM.lstrip("/"), False
    if link.is_symlink():
        link.unlink()
    for place in PLACES:
        path = root / place.lstrip("/")
        found = found or path.exists()
        shutil.rmtree(path, ignore_errors=True)
    return found
