"""Writes what energy_meter reads as CSV to standard output: a row for each reading of the meter.

    BLOCKS_API_KEY=bk_... python energy_meter_caller.py --rows 1000 > energy.csv

A row that came late, from the device's buffer after an outage, is in its place by `seq`.
"""

import argparse
import csv
import os
import sys
from datetime import UTC, datetime

from blocks_network import TaskClient

COLUMNS = ["seq", "time", "voltage", "current", "power", "energy", "heat_pump_wh"]


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=60)
    options.add_argument("--every", type=float, default=2.0, help="seconds from row to row")
    args = options.parse_args()
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(COLUMNS)
    with TaskClient.create(billing_mode="free", api_key=os.environ["BLOCKS_API_KEY"]) as client:
        minutes = max(1, round(args.rows * args.every / 60 + 2))
        session = client.send_message(agent_name="energy_meter", task_kind="pipe", duration=minutes)
        stream = session.wait_for_stream("energy", timeout=60).open()
        pulses, rows = "", 0
        for event in stream.events():
            if event["kind"] == "gap":
                print(f"{event['count']} readings are missing: {event['reason']}", file=sys.stderr)
            if event["kind"] != "reading":
                continue
            values = event["values"]
            if event["device"] == "heat_pump":
                pulses = values["count"]
                continue
            at = datetime.fromtimestamp(event["at"] / 1000, UTC).isoformat(timespec="milliseconds")
            out.writerow([event["seq"], at, *(values[name] for name in COLUMNS[2:6]), pulses])
            sys.stdout.flush()
            rows += 1
            if rows >= args.rows:
                break
        session.cancel()
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # the SDK leaves a thread in a long-poll
