"""Waters a field with relay_board: opens its valve, runs the pump, and believes only what was read back.

    BLOCKS_API_KEY=bk_... python relay_board_caller.py lower --seconds 600

When anything is not as it should be, the session ends, and with it every relay goes to safe.
"""

import argparse
import os
import queue
import sys
import threading
import time
import uuid

from blocks_network import TaskClient


class Board:
    """The stream of relays: a command, then its answer."""

    def __init__(self, stream) -> None:
        self._stream = stream
        self._acks: queue.Queue = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for event in self._stream.events():
            if event["kind"] == "ack":
                self._acks.put(event)

    def switch(self, device: str, on: bool) -> None:
        """Raises RuntimeError unless the pin was read back as wanted."""
        command = {"kind": "set", "id": str(uuid.uuid4()), "device": device, "values": {"on": on}}
        self._stream.write({**command, "ttl_ms": 5000})
        while True:
            ack = self._acks.get(timeout=30)
            if ack["id"] == command["id"]:
                break
        if ack["state"] != "done" or not ack["verified"]:
            raise RuntimeError(f"{device}: {ack.get('error', {}).get('message', ack['state'])}")
        print(f"{device} {'on' if on else 'off'}, verified", flush=True)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("field", choices=["upper", "lower"])
    options.add_argument("--seconds", type=float, default=600.0)
    args = options.parse_args()
    with TaskClient.create(billing_mode="free", api_key=os.environ["BLOCKS_API_KEY"]) as client:
        minutes = round(args.seconds / 60) + 2
        session = client.send_message(agent_name="relay_board", task_kind="pipe", duration=minutes)
        board = Board(session.wait_for_stream("relays", timeout=60).open())
        try:
            board.switch(f"valve_{args.field}", True)
            board.switch("pump", True)
            time.sleep(args.seconds)
            board.switch("pump", False)
            board.switch(f"valve_{args.field}", False)
        except (RuntimeError, queue.Empty) as error:
            print("stopped:", error or "no answer from the board")
            return 1
        finally:
            session.cancel()
    print("watered")
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # the SDK leaves a thread in a long-poll
