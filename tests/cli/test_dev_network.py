"""What `dev-network` prints is enough for a program on the official SDK."""

import os
import re
import subprocess
import sys

from support.waiting import LIMIT_S

PROGRAM = """
import os
from blocks_network import TaskClient
with TaskClient.create(billing_mode="free", api_key=os.environ["BLOCKS_API_KEY"]) as client:
    print("task", client.send_message(agent_name="nobody").task_id)
"""


def test_the_official_sdk_finds_it_by_what_is_printed() -> None:
    network = subprocess.Popen(
        [sys.executable, "-m", "device_agent", "dev-network", "--port", "0"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert network.stdout is not None
    try:
        said = []
        for line in network.stdout:
            said.append(line)
            if line.startswith("Ctrl-C"):
                break
        variables = dict(re.findall(r"^export (\w+)=(\S+)$", "".join(said), re.MULTILINE))
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, **variables}, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert re.search(r"^task \S+$", done.stdout, re.MULTILINE), done.stderr
        assert any(line.endswith("cards/greenhouse_caller.py\n") for line in said)
    finally:
        network.terminate()
        network.wait(LIMIT_S)
        network.stdout.close()
