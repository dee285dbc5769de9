"""Waters greenhouse_7 when its air is dry, and says what it did. Meant for cron: one look, one decision.

BLOCKS_API_KEY=bk_... python greenhouse_caller.py --below 60 --seconds 120 --picture climate.png
"""

import argparse
import json
import os
import sys

from blocks_network import TaskClient


def ask(client: TaskClient, question: dict) -> tuple[dict, list[bytes]]:
    """One request task: its result, and what came with it."""
    part = {"partId": "request", "contentType": "application/json", "text": json.dumps(question)}
    task = client.send_message(agent_name="greenhouse_7", request_parts=[part])
    task.wait_for_terminal(timeout=120)
    task = client.connect(task.task_id)  # the whole of it, also what came late
    files = [task.download_artifact(artifact).data for artifact in task.list_artifacts()]
    task.close()
    return json.loads(files[0]), files[1:]


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--below", type=float, default=60.0, help="humidity in percent")
    options.add_argument("--seconds", type=float, default=120.0)
    options.add_argument("--picture", help="file for the last day's climate")
    args = options.parse_args()
    with TaskClient.create(billing_mode="free", api_key=os.environ["BLOCKS_API_KEY"]) as client:
        answer, _ = ask(client, {"op": "read", "devices": ["climate", "door"]})
        if answer["state"] != "done":
            print("cannot see:", answer["error"]["message"])
            return 1
        climate, door = (reading["values"] for reading in answer["readings"])
        print(f"{climate['temperature']:.1f} °C, {climate['humidity']:.0f} %, door open: {door['active']}")
        if climate["humidity"] is not None and climate["humidity"] < args.below:
            water = {"op": "set", "device": "valve", "values": {"on": True}, "for_s": args.seconds}
            answer, _ = ask(client, water)
            if answer["state"] != "done":
                print("not watered:", answer["error"]["message"])
                return 1
            print(f"watering for {args.seconds:g} s, verified: {answer['ack']['verified']}")
        if args.picture:
            answer, files = ask(client, {"op": "history", "devices": ["climate"], "format": "png"})
            with open(args.picture, "wb") as file:
                file.write(files[0])
            print(f"{args.picture}: {answer['count']} values")
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # the SDK leaves a thread in a long-poll
