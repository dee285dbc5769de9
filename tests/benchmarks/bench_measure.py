"""What the benchmarks measure with: percentiles, the kernel's own accounts of a process, tables, JSON."""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

TICK_HZ = os.sysconf("SC_CLK_TCK")


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which this share of the values lies (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


# -- a process as the kernel sees it ------------------------------------------------------------------------


def cpu_s(pid: int) -> float:
    """CPU seconds of a process and all its threads so far, in steps of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK_HZ


def memory_mb(pid: int) -> dict[str, float]:
    """Resident memory in MB of 10**6 bytes: all of it, its fair share, and its own (no file behind it)."""
    sizes = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        sizes[name] = int(rest.split()[0]) * 1024 / 1e6
    return {"rss_mb": sizes["Rss"], "pss_mb": sizes["Pss"], "own_mb": sizes["Anonymous"]}


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def disk_written_bytes(pid: int) -> int:
    """Bytes that the process has caused to be written to block devices."""
    for line in Path(f"/proc/{pid}/io").read_text().splitlines():
        if line.startswith("write_bytes:"):
            return int(line.split()[1])
    return 0


# -- order and number ---------------------------------------------------------------------------------------


def tally(sent: Iterable[int], received: Sequence[tuple[int, bool]]) -> dict[str, int]:
    """Lost, duplicated and out of order at a caller; `received` is (number, late) as it came.

    Order is counted among the live events and among the late ones, as each promises order of its own.
    """
    wanted = set(sent)
    numbers = [n for n, _ in received if n in wanted]
    known = set(numbers)
    disorder = 0
    for late_ones in (False, True):
        highest = -1
        for n, late in received:
            if late is late_ones and n in wanted:
                disorder += n < highest
                highest = max(highest, n)
    return {
        "sent": len(wanted),
        "lost": len(wanted - known),
        "duplicated": len(numbers) - len(known),
        "out_of_order": disorder,
    }


# -- saying it ----------------------------------------------------------------------------------------------


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table in Markdown, aligned for a terminal too."""
    lines = [list(head), *([_text(cell) for cell in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    print(f"\n### {title}\n")
    for index, line in enumerate(lines):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |")
        if index == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
    print(flush=True)


def _text(cell: Any) -> str:
    if cell is None:
        return "–"
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:.3g}" if abs(cell) < 10 else f"{cell:.1f}"
    return str(cell)


def note(text: str) -> None:
    """Progress, on one line."""
    print(f"# {time.strftime('%H:%M:%S')} load {os.getloadavg()[0]:.1f}  {text}", flush=True)


def machine() -> dict[str, Any]:
    """Where and when the figures were taken, with the load of the machine at that moment."""
    from importlib.metadata import version

    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "cpu": model[0].partition(":")[2].strip() if model else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "blocks-network": version("blocks-network"),
        "pubnub": version("pubnub"),
        "load": os.getloadavg(),
    }


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options that all benchmarks share."""
    made = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    made.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    made.add_argument("--rounds", type=int, help="rounds of each measurement; the medians are reported")
    made.add_argument("--smoke", action="store_true", help="as little of everything as can be")
    made.add_argument("--alone", action="store_true", help="leave the official runtime out")
    return made


def save(path: Path | None, began: Mapping[str, Any], results: Mapping[str, Any]) -> None:
    """The figures as JSON, with the machine before and after."""
    whole = {"machine": began, "load_after": os.getloadavg(), "results": results}
    print(f"load before {began['load']}, after {whole['load_after']}; {began['cpu']} x {began['cores']}")
    if path is not None:
        path.write_text(json.dumps(whole, indent=1) + "\n")
