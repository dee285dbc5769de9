"""After the power came back: `power_checker.py FOLDER ACKS`. What was promised is there, or said dropped."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from power_writer import CHANNEL, begin


async def drained(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """All events that wait, and the outbox's figures."""
    outbox = await begin(folder)
    queue = await outbox.open(CHANNEL, "events", "drop-oldest")
    seen: list[dict[str, Any]] = []
    while queue.pending_events:
        await asyncio.wait_for(queue.until_ready(), 30)
        cut = queue.next_message(50_000)
        assert cut is not None
        seen += [json.loads(item) for item in cut.items]
        queue.ack(cut)
    return seen, outbox.figures()


def check(seen: list[dict[str, Any]], figures: dict[str, Any], promised: int) -> str:
    """A sentence; raises AssertionError."""
    assert not figures["set_aside"], f"the store was set aside: {figures['set_aside']}"
    gaps = [event for event in seen if event["kind"] == "gap"]
    came = [event["seq"] for event in seen]
    assert len(came) == len(set(came)), "an event came twice"
    (cut,) = [gap for gap in gaps if gap["seq"] == max(came)]
    assert cut["reason"] == "power_cut", "the power cut is not said"
    assert cut["from_seq"] > promised, f"{promised} was promised, and lost from {cut['from_seq']} on"
    # What the cap has dropped, and earlier cuts.
    dropped = {n for g in gaps if g is not cut for n in range(g["from_seq"], g["to_seq"] + 1)}
    missing = set(range(1, promised + 1)) - set(came) - dropped
    assert not missing, f"{len(missing)} of {promised} promised events are missing: {sorted(missing)[:5]}"
    return f"{promised} promised, {len(came)} came, {len(dropped)} dropped by the cap and said, none missing"


def main(folder: Path, acks: Path) -> None:
    promised = max(
        (int(line.split()[-1]) for line in acks.read_text().splitlines() if line.strip()), default=0
    )
    seen, figures = asyncio.run(drained(folder))
    print("checker:", check(seen, figures, promised) if promised else "cut before the first promise")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
