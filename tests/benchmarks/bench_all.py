"""All benchmarks, one report: tables, figures and pictures in build/bench.

    python tests/benchmarks/bench_all.py [--out DIR] [--only NAME ...] [--quick] [--alone]

Each has a limit of time. One that fails or takes longer is said in the report, and the others are run.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from bench_measure import machine

HERE = Path(__file__).parent
# How many seconds each may take: twice what it takes on a quiet machine with two cores.
LIMITS_S = {
    "pipe": 1200,
    "footprint": 480,
    "outage": 720,
    "backlog": 240,
    "growth": 900,
    "small": 300,
    "readings": 480,
    "mqtt": 360,
    "safety": 240,
    "guard": 240,
    "flood": 600,
    "publisher": 60,
}
# With as little of everything as can be.
QUICK_LIMIT_S = 120
NAMES = tuple(LIMITS_S)
# To end in order what it has started.
END_LIMIT_S = 30
# A benchmark's own warnings of its callers' libraries; the whole is in its log.
ERROR_LINES = 5


def ran(name: str, words: list[str], log: Path, limit_s: float) -> tuple[str, str]:
    """What a benchmark prints, shown as it comes: its tables, and why it failed, "" if it did not."""
    command = [sys.executable, str(HERE / f"bench_{name}.py"), *words]
    said = []
    with (
        log.open("w") as errors,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
        ) as process,
    ):
        assert process.stdout is not None
        late = threading.Event()
        limit = threading.Timer(limit_s, lambda: (late.set(), end(process)))
        limit.start()
        try:
            for line in process.stdout:
                sys.stdout.write(line)
                sys.stdout.flush()
                if not line.startswith("# "):  # progress
                    said.append(line)
            code = process.wait()
        except BaseException:
            end(process)
            raise
        finally:
            limit.cancel()
    why = f"it took longer than {limit_s:g} s" if late.is_set() else f"it ended with {code}" if code else ""
    if why:
        why += "\n\n```\n" + "\n".join(log.read_text().splitlines()[-ERROR_LINES:]) + "\n```"
    return "".join(said), why


def end(process: "subprocess.Popen[str]") -> None:
    """A benchmark with what it has started: in order, then all that is left of its session."""
    process.terminate()
    try:
        process.wait(END_LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--out", type=Path, default=Path("build/bench"), metavar="DIR")
    options.add_argument(
        "--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=", ".join(NAMES)
    )
    options.add_argument("--quick", action="store_true", help="as little of everything as can be")
    options.add_argument("--alone", action="store_true", help="leave the official runtime out")
    given = options.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    shared = ["--smoke"] * given.quick + ["--alone"] * given.alone
    where, began_s = machine(), time.monotonic()
    place = ", ".join(f"{name} {value}" for name, value in where.items())
    report: list[str] = []
    figures: dict[str, Any] = {}
    failed: dict[str, str] = {}
    for name in given.only:
        path, log = given.out / f"{name}.json", given.out / f"{name}.log"
        path.unlink(missing_ok=True)
        pictures = ["--pictures", str(given.out)] if name == "growth" else []
        part_s = time.monotonic()
        limit_s = QUICK_LIMIT_S if given.quick else LIMITS_S[name]
        tables, why = ran(name, ["--json", str(path), *shared, *pictures], log, limit_s)
        report.append(f"\n## {name} ({time.monotonic() - part_s:.0f} s)\n{tables}")
        if why or not path.exists():
            failed[name] = why or "it left no figures"
            report.append(f"\n**Failed: {failed[name]}**\n")
            print(f"# bench_{name} failed: {failed[name]}", flush=True)
        else:
            figures[name] = json.loads(path.read_text())
    took_min, load = (time.monotonic() - began_s) / 60, os.getloadavg()
    head = f"# Benchmarks\n\n{place}\n\n{took_min:.0f} minutes, load afterwards {load}.\n"
    head += f"\nFailed: {', '.join(failed) or 'none'}.\n"
    report += [f"\n![{path.stem}]({path.name})\n" for path in sorted(given.out.glob("*.svg"))]
    (given.out / "report.md").write_text("".join([head, *report]))
    whole = {"machine": where, "minutes": took_min, "load_after": load, "failed": failed, "parts": figures}
    (given.out / "report.json").write_text(json.dumps(whole, indent=1) + "\n")
    print(f"{given.out}/report.md, {given.out}/report.json; failed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
