"""Commands at the device, as processes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

LIMIT_S = 60.0


class Owner:
    """Runs `device-agent --config FILE …`."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def begin(self, *words: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "device_agent", "--config", str(self.file), *words]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def __call__(self, *words: str) -> "subprocess.CompletedProcess[str]":
        with self.begin(*words) as process:
            try:
                out, err = process.communicate(timeout=LIMIT_S)
            finally:
                process.kill()
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def says(self, *words: str) -> Any:
        """The answer as JSON; the command must have succeeded."""
        done = self(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)
