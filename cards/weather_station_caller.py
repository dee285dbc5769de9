"""Watches weather_station and says when it freezes, storms or rains. Ends with 3 if there was an alarm.

BLOCKS_API_KEY=bk_... python weather_station_caller.py --minutes 60 --storm 75
"""

import argparse
import os
import sys
import time

from blocks_network import TaskClient

KMH_PER_HZ = 2.4
MM_PER_TIP = 0.2794


class Alarms:
    """Says each alarm when it begins, not with every reading."""

    def __init__(self) -> None:
        self.raised: set[str] = set()
        self.count = 0

    def judge(self, name: str, is_so: bool, words: str) -> None:
        if is_so and name not in self.raised:
            self.raised.add(name)
            self.count += 1
            print(f"{time.strftime('%H:%M:%S')} ALARM {words}", flush=True)
        elif not is_so and name in self.raised:
            self.raised.discard(name)
            print(f"{time.strftime('%H:%M:%S')} over: {name}", flush=True)


def watch(stream, alarms: Alarms, storm_kmh: float, until: float) -> None:
    tips = None
    for event in stream.events():
        if event["kind"] == "status" and event["state"] != "online":
            print(f"{event['device']} is {event['state']}: {event.get('reason', '')}", flush=True)
        if event["kind"] == "gap":
            print(f"{event['count']} readings are missing: {event['reason']}", flush=True)
        if event["kind"] == "reading":
            values = event["values"]
            if event["device"] == "air" and values["temperature"] is not None:
                alarms.judge("frost", values["temperature"] < 0, f"frost: {values['temperature']:.1f} °C")
            if event["device"] == "wind" and values["rate"] is not None:
                speed = values["rate"] * KMH_PER_HZ
                alarms.judge("storm", speed > storm_kmh, f"storm: {speed:.0f} km/h")
            if event["device"] == "rain" and values["count"] is not None:
                if tips is not None and values["count"] > tips:
                    print(f"rain: {(values['count'] - tips) * MM_PER_TIP:.2f} mm", flush=True)
                tips = values["count"]
        if time.monotonic() > until:
            return


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--minutes", type=float, default=60.0)
    options.add_argument("--storm", type=float, default=75.0, help="km/h")
    args = options.parse_args()
    alarms = Alarms()
    with TaskClient.create(billing_mode="free", api_key=os.environ["BLOCKS_API_KEY"]) as client:
        duration = max(1, round(args.minutes + 1))
        session = client.send_message(agent_name="weather_station", task_kind="pipe", duration=duration)
        stream = session.wait_for_stream("weather", timeout=60).open()
        watch(stream, alarms, args.storm, time.monotonic() + args.minutes * 60)
        session.cancel()
    print(f"{alarms.count} alarms")
    return 3 if alarms.count else 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # the SDK leaves a thread in a long-poll
