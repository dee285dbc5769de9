"""The benchmarks as tests: all of each with `make bench`, as little as can be with every other run."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
NAMES = (
    "bench_pipe",
    "bench_outage",
    "bench_backlog",
    "bench_footprint",
    "bench_safety",
    "bench_guard",
    "bench_readings",
)
SMOKE_LIMIT_S = 200.0


def run(name: str, *words: str, out: Path, limit_s: float) -> dict[str, Any]:
    """A benchmark as its user starts it; its figures."""
    subprocess.run(
        [sys.executable, str(HERE / f"{name}.py"), "--json", str(out), *words], check=True, timeout=limit_s
    )
    results: dict[str, Any] = json.loads(out.read_text())["results"]
    return results


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_smoke(name: str, tmp_path: Path) -> None:
    """Nothing is judged here but that the harness still works on both runtimes."""
    results = run(name, "--smoke", out=tmp_path / "figures.json", limit_s=SMOKE_LIMIT_S)
    for entries in results.values():
        assert entries
    for entry in [*results.get("rate", ()), *results.get("outage", ())]:
        if entry["rival"] == "device-agent":
            assert (entry["lost"], entry["duplicated"], entry["out_of_order"]) == (0, 0, 0)


@pytest.mark.bench
@pytest.mark.parametrize("name", NAMES)
def test_bench(name: str) -> None:
    folder = Path("build")
    folder.mkdir(exist_ok=True)
    run(name, out=folder / f"{name}.json", limit_s=1700.0)
