"""Later versions of a package, for the walk: `variants.py dist/device-agent_0.1.0_amd64.deb OUT`.

Version 3 does not become ready; all others are as the first.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

BROKEN = 3


def main(package: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    shutil.copy(package, out / "device-agent.deb")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        subprocess.run(["dpkg-deb", "--raw-extract", package, root], check=True)
        control, agent = root / "DEBIAN" / "control", next(root.rglob("site-packages/device_agent/agent.py"))
        text, program = control.read_text(), agent.read_text()
        for number in (2, BROKEN, 4):
            control.write_text(re.sub(r"(?m)^(Version: .*)$", rf"\1+{number}", text))
            agent.write_text(program + ('\nraise RuntimeError("broken")\n' if number == BROKEN else ""))
            target = out / f"device-agent_{number}.deb"
            build = ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", root, target]
            subprocess.run(build, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
