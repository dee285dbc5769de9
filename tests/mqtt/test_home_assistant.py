"""A real Home Assistant at the same broker finds the devices by itself, switches one, and shows a refusal.

It is too large for this environment, so it has one of its own (docs/mqtt.md).
"""

import json
import os
import re
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from support.mosquitto import Broker, free_port
from support.processes import BoardProcess, Daemon
from support.waiting import LIMIT_S, until

NAMED = "DEVICE_AGENT_HOME_ASSISTANT"
HASS = os.environ.get(NAMED, "")
pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(not HASS, reason=f"{NAMED} does not name the program hass of Home Assistant"),
]

CONFIG = """
[agent]
name = "greenhouse"
[network]
kind = "none"
[state]
directory = "{folder}/state"
[buses.pins]
kind = "gpio"
chip = "pinctrl-bcm2835"
pwm = {{ 18 = "3f20c000.pwm/0" }}
[buses.i2c1]
kind = "i2c"
device = "/dev/i2c-1"
[devices.climate]
driver = "bme280"
bus = "i2c1"
address = 0x76
every_s = 1
[devices.rain]
driver = "gpio-input"
bus = "pins"
line = 17
count = true
[devices.valve]
driver = "gpio-output"
bus = "pins"
line = 27
safe = false
min_off_s = 3600
[devices.fan]
driver = "gpio-pwm"
bus = "pins"
line = 18
safe = 0
[mqtt]
host = "127.0.0.1"
port = {port}
home_assistant = true
[access]
drive = ["local:mqtt"]
"""
HOME = """
homeassistant:
  name: Farm
api:
config:
onboarding:
http:
  server_host: 127.0.0.1
  server_port: {port}
"""
# The first start makes its databases.
START_S = 4 * LIMIT_S
ME = "http://127.0.0.1/"


class HomeAssistant:
    """Its REST interface (https://developers.home-assistant.io/docs/api/rest/), and that of its own pages."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._port = free_port()
        self._token = ""
        (folder / "configuration.yaml").write_text(HOME.format(port=self._port))
        self._log = folder / "log"
        with self._log.open("wb") as log:
            words = [HASS, "--config", str(folder)]
            self._process = subprocess.Popen(words, stdout=log, stderr=log)
        try:
            until(self._answers, "Home Assistant", START_S)
        except AssertionError as error:
            self.close()
            raise AssertionError(self.log()) from error

    def _answers(self) -> bool:
        assert self._process.poll() is None
        try:
            self.ask("/api/onboarding")
        except urllib.error.HTTPError as error:
            error.close()
            return False
        except OSError:
            return False
        return True

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def ask(self, path: str, body: object = None, *, form: bool = False) -> Any:
        data = None
        if body is not None:
            data = (urllib.parse.urlencode(body) if form else json.dumps(body)).encode()  # type: ignore[arg-type]
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        kind = "application/x-www-form-urlencoded" if form else "application/json"
        url = f"http://127.0.0.1:{self._port}{path}"
        asked = urllib.request.Request(url, data, {**headers, "Content-Type": kind})
        with urllib.request.urlopen(asked, timeout=LIMIT_S) as answer:
            return json.loads(answer.read())

    def move_in(self) -> None:
        """Its first user."""
        user = {"client_id": ME, "name": "Me", "username": "me", "password": "secret", "language": "en"}
        code = self.ask("/api/onboarding/users", user)["auth_code"]
        grant = {"client_id": ME, "grant_type": "authorization_code", "code": code}
        self._token = self.ask("/auth/token", grant, form=True)["access_token"]

    def add_broker(self, port: int) -> None:
        """As a person does on its page of integrations."""
        flow = "/api/config/config_entries/flow"
        begun = self.ask(flow, {"handler": "mqtt"})
        done = self.ask(f"{flow}/{begun['flow_id']}", {"broker": "127.0.0.1", "port": port})
        assert done["type"] == "create_entry", done

    def state(self, entity: str) -> str:
        """Of an entity; "" while there is none."""
        found = {one["entity_id"]: one["state"] for one in self.ask("/api/states")}
        return str(found.get(entity, ""))

    def shows(self, entity: str, *states: str) -> None:
        until(lambda: self.state(entity) in states, f"{entity} in {states}; there is {self.state(entity)!r}")

    def call(self, service: str, entity: str, **data: Any) -> None:
        self.ask(f"/api/services/{service}", {"entity_id": entity, **data})

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(START_S)


@pytest.fixture
def farm(tmp_path: Path, broker: Broker) -> Iterator[tuple[HomeAssistant, Daemon, BoardProcess]]:
    with ExitStack() as stack:
        broker.start()
        config = tmp_path / "agent.toml"
        config.write_text(CONFIG.format(folder=tmp_path, port=broker.port))
        board = BoardProcess(tmp_path, config)
        stack.callback(board.stop)
        daemon = Daemon(tmp_path, config, {"DEVICE_AGENT_BOARD": str(board.socket)})
        stack.callback(daemon.end)
        daemon.wait_logged("mqtt_joined")
        home = HomeAssistant(tmp_path / "home")
        stack.callback(home.close)
        home.move_in()
        home.add_broker(broker.port)
        yield home, daemon, board


def test_it_finds_the_devices_and_switches_one(farm: tuple[HomeAssistant, Daemon, BoardProcess]) -> None:
    home, daemon, board = farm
    valve, said = "switch.greenhouse_valve_on", "sensor.greenhouse_valve_last_command"
    temperature = "sensor.greenhouse_climate_temperature"
    home.shows(valve, "off")
    until(lambda: re.fullmatch(r"-?\d+\.\d+", home.state(temperature)), "a temperature")
    home.shows("sensor.greenhouse_rain_count", "0")
    home.call("switch/turn_on", valve)
    home.shows(valve, "on")
    home.shows(said, "done")
    assert board.levels(27)[-1] == 1
    home.call("switch/turn_off", valve)
    home.shows(valve, "off")
    assert board.levels(27)[-1] == 0
    moved = len(board.levels(27))
    home.call("switch/turn_on", valve)
    until(lambda: home.state(said).startswith("too_soon: valve.on must rest min_off_s = 3600"), "the rule")
    home.shows(valve, "off")
    assert len(board.levels(27)) == moved
    home.call("number/set_value", "number.greenhouse_fan_duty", value=0.42)
    home.shows("number.greenhouse_fan_duty", "0.42")
    daemon.kill()
    for entity in (valve, temperature, "number.greenhouse_fan_duty"):
        home.shows(entity, "unavailable")
    troubles = [line for line in home.log().splitlines() if re.search(r"(WARNING|ERROR).*mqtt", line)]
    assert troubles == []
