"""A terminal for printer_console: what is typed goes to the printer, what it says is shown.

BLOCKS_API_KEY=bk_... python printer_console_caller.py            # type M105, end with Ctrl-D
BLOCKS_API_KEY=bk_... python printer_console_caller.py --send part.gcode
"""

import argparse
import json
import os
import sys
import threading

from blocks_network import TaskClient, file_part


def converse(client: TaskClient, wait_s: float) -> int:
    session = client.send_message(agent_name="printer_console", task_kind="pipe", duration=60)
    console = session.wait_for_stream("console", timeout=60).open()

    def show() -> None:
        for chunk in console.bytes():
            text = chunk if isinstance(chunk, str) else bytes(chunk).decode("utf-8", "replace")
            print(text, end="", flush=True)

    showing = threading.Thread(target=show, daemon=True)
    showing.start()
    for line in sys.stdin:
        console.write(line.encode())
    showing.join(wait_s)  # what the printer still has to say
    session.cancel()
    return 0


def send(client: TaskClient, path: str) -> int:
    question = {"op": "do", "device": "console", "action": "send_file"}
    parts = [
        {"partId": "request", "contentType": "application/json", "text": json.dumps(question)},
        file_part(path),
    ]
    task = client.send_message(agent_name="printer_console", request_parts=parts)
    task.on_progress(lambda event: print(event["message"]) if event.get("message") else None)
    task.wait_for_terminal(timeout=6 * 3600)
    answer = json.loads(task.download_artifact(task.list_artifacts()[0]).data)
    print(answer["state"], answer.get("error", {}).get("message", ""))
    return 0 if answer["state"] == "done" else 1


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--send", metavar="FILE", help="a file to print")
    options.add_argument("--wait", type=float, default=5.0, help="seconds after the last line")
    args = options.parse_args()
    with TaskClient.create(billing_mode="free", api_key=os.environ["BLOCKS_API_KEY"]) as client:
        return send(client, args.send) if args.send else converse(client, args.wait)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # the SDK leaves a thread in a long-poll
