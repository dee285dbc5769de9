"""The benchmarks as tests: as little of each as can be; `bench_all` runs all of them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import bench_all  # noqa: E402

SMOKE_LIMIT_S = 200.0
# Not with every run: one needs root, one is made of others, and what two of them measure has its tests.
SMOKED = [name for name in bench_all.NAMES if name not in ("small", "growth", "mqtt", "flood")]


def run(name: str, *words: str, out: Path, limit_s: float) -> dict[str, Any]:
    """A benchmark as its user starts it; its figures."""
    subprocess.run(
        [sys.executable, str(HERE / f"{name}.py"), "--json", str(out), *words], check=True, timeout=limit_s
    )
    results: dict[str, Any] = json.loads(out.read_text())["results"]
    return results


@pytest.mark.slow
@pytest.mark.parametrize("name", SMOKED)
def test_smoke(name: str, tmp_path: Path) -> None:
    """Nothing is judged here but that the harness still works on both runtimes."""
    results = run(f"bench_{name}", "--smoke", out=tmp_path / "figures.json", limit_s=SMOKE_LIMIT_S)
    for entries in results.values():
        assert entries
    for entry in [*results.get("rate", ()), *results.get("outage", ())]:
        if entry["rival"] == "device-agent":
            assert (entry["lost"], entry["duplicated"], entry["out_of_order"]) == (0, 0, 0)
