"""All benchmarks, one report: tables, figures and pictures in build/bench.

python tests/benchmarks/bench_all.py [--out DIR] [--only NAME ...] [--smoke] [--alone]
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from bench_measure import machine

HERE = Path(__file__).parent
NAMES = (
    "pipe",
    "footprint",
    "outage",
    "backlog",
    "growth",
    "small",
    "readings",
    "mqtt",
    "safety",
    "guard",
    "flood",
)
LIMIT_S = 3600.0


def ran(name: str, words: list[str]) -> str:
    """What a benchmark prints, shown as it comes; its tables alone are returned."""
    command = [sys.executable, str(HERE / f"bench_{name}.py"), *words]
    said = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
            if not line.startswith("# "):  # progress
                said.append(line)
    if process.wait(LIMIT_S):
        said.append(f"\n**bench_{name} ended with {process.returncode}.**\n")
    return "".join(said)


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--out", type=Path, default=Path("build/bench"), metavar="DIR")
    options.add_argument(
        "--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=", ".join(NAMES)
    )
    options.add_argument("--smoke", action="store_true", help="as little of everything as can be")
    options.add_argument("--alone", action="store_true", help="leave the official runtime out")
    given = options.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    shared = [f"--{word}" for word in ("smoke", "alone") if getattr(given, word)]
    where = machine()
    place = ", ".join(f"{name} {value}" for name, value in where.items())
    report, figures = [f"# Benchmarks\n\n{place}\n"], {}
    for name in given.only:
        path = given.out / f"{name}.json"
        path.unlink(missing_ok=True)
        pictures = ["--pictures", str(given.out)] if name == "growth" else []
        began_s = time.monotonic()
        tables = ran(name, ["--json", str(path), *shared, *pictures])
        report.append(f"\n## {name} ({time.monotonic() - began_s:.0f} s)\n{tables}")
        if path.exists():
            figures[name] = json.loads(path.read_text())
    report += [f"\n![{path.stem}]({path.name})\n" for path in sorted(given.out.glob("*.svg"))]
    (given.out / "report.md").write_text("".join(report))
    (given.out / "report.json").write_text(json.dumps(figures, indent=1) + "\n")
    print(f"{given.out}/report.md, {given.out}/report.json")
    return 0 if set(figures) == set(given.only) else 1


if __name__ == "__main__":
    sys.exit(main())
