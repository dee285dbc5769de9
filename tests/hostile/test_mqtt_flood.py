"""A sender who floods a topic, or sends what no memory holds, stops neither the loop nor an actuator."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_agent.testing.network import NetworkThread
from support.deployment import World
from support.mosquitto import Broker
from support.processes import high_water_kb
from support.waiting import until

CONFIG = """
[agent]
name = "greenhouse_7"
organization = "Example Farm"
[network]
kind = "none"
[state]
directory = "{folder}/state"
[buses.broker]
kind = "mqtt"
host = "127.0.0.1"
port = {port}
[devices.plug]
driver = "mqtt-topic"
bus = "broker"
every_s = 1
[devices.plug.points]
power = {{ unit = "W", topic = "plug/power" }}
on = {{ type = "boolean", write = true, write_topic = "plug/set", safe = false }}
"""

# Until it is told to end.
FLOOD = """
import sys
from paho.mqtt import client, enums
c = client.Client(enums.CallbackAPIVersion.VERSION2)
c.connect("127.0.0.1", int(sys.argv[1]))
c.loop_start()
c.publish("plug/power", b"7" * 50_000_000, qos=1, retain=True).wait_for_publish(60)
while True:
    for number in range(1000):
        sent = c.publish("plug/power", b"%d" % number)
    sent.wait_for_publish(60)
"""


@pytest.fixture
def flooded(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path)
    broker.start()
    with subprocess.Popen([sys.executable, "-c", FLOOD, str(broker.port)]) as sender:
        yield broker
        sender.kill()
    broker.stop()


@pytest.mark.slow
def test_a_flood_of_messages(net: NetworkThread, flooded: Broker, tmp_path: Path) -> None:
    with World(tmp_path, net, config=CONFIG, port=flooded.port, simulated=False) as world:
        daemon = world.start(joined=False)
        until(lambda: daemon.logged("device_online"), "the plug")
        daemon.wait_logged("mqtt_message_too_large")
        until(lambda: (daemon.device("plug")["latest"] or {})["values"]["power"], "a value of the flood")
        for number in range(5):
            answer = daemon.ask("set", device="plug", values={"on": number % 2 == 0})
            assert answer["state"] == "done", answer
        assert daemon.device("plug")["state"] == "online"
        assert not daemon.logged("actuators_unknown"), "the guard never took over"
        assert high_water_kb(daemon.process.pid) < 120_000
        assert daemon.stop() == 0
