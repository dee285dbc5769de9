"""A real Prometheus scrapes a real daemon."""

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.mosquitto import free_port
from support.processes import BoardProcess, Daemon
from support.waiting import until

LIMIT_S = 60.0

pytestmark = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")),
    reason="Prometheus is not installed (apt-get install prometheus)",
)

CONFIG = """
[agent]
name = "greenhouse_7"
[network]
kind = "none"
[state]
directory = "{folder}/state"
[safety]
guard_timeout_s = 10
[buses.pins]
kind = "gpio"
chip = "pinctrl-bcm2835"
[devices.valve]
driver = "gpio-output"
bus = "pins"
line = 27
safe = false
every_s = 0.5
[page]
listen = "127.0.0.1:{port}"
password_file = "password"
"""
SCRAPE = """
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: device-agent
    authorization: {{credentials_file: {folder}/password}}
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


@contextmanager
def prometheus(folder: Path, target: int) -> Iterator[str]:
    """Its address. It looks every second."""
    port = free_port()
    config = folder / "prometheus.yml"
    config.write_text(SCRAPE.format(folder=folder, port=target))
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(LIMIT_S)


def asked(url: str, query: str) -> list[dict[str, Any]]:
    """The answer to a query; nothing while Prometheus is not up."""
    try:
        with urllib.request.urlopen(f"{url}/api/v1/query?query={urllib.parse.quote(query)}") as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
            return found
    except OSError:
        return []


def test_prometheus_scrapes_it_by_its_password(tmp_path: Path) -> None:
    password, port = tmp_path / "password", free_port()
    password.write_text("open sesame\n")
    password.chmod(0o600)
    config = tmp_path / "agent.toml"
    config.write_text(CONFIG.format(folder=tmp_path, port=port))
    board = BoardProcess(tmp_path, config)
    daemon = Daemon(tmp_path, config, {"DEVICE_AGENT_BOARD": str(board.socket)})
    try:
        daemon.wait_logged("ready")
        daemon.wait_logged("page_open")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz") as answer:
            assert answer.read() == b"ready\n"
        assert daemon.ask("set", device="valve", values={"on": True})["state"] == "done"
        refused = daemon.ask("set", device="valve", values={"on": 7})
        assert refused["error"]["code"] == "invalid_value"
        with prometheus(tmp_path, port) as url:
            readings = 'device_agent_readings_total{device="valve"} > 2'
            until(lambda: asked(url, readings), "readings are scraped", LIMIT_S)
            (up,) = asked(url, "up")
            assert up["value"][1] == "1"
            refusals = asked(url, 'device_agent_commands_total{state="rejected"}')
            assert [(one["metric"]["code"], one["value"][1]) for one in refusals] == [("invalid_value", "1")]
            (memory,) = asked(url, "device_agent_process_resident_memory_bytes")
            assert float(memory["value"][1]) > 10_000_000
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/metrics", headers={"Authorization": "Bearer open sesame"}
        )
        with urllib.request.urlopen(request) as answer:
            text = answer.read()
        checked = subprocess.run(
            ["promtool", "check", "metrics"], input=text, capture_output=True, check=False
        )
        assert (checked.returncode, checked.stderr) == (0, b"")
    finally:
        daemon.end()
        board.stop()
