"""What is wrong with one device on a bus is nobody else's: the bus stays open, and its neighbours online.

GPIO lines are in `tests/kernel/test_kernel_bad_places.py`: a simulated chip has every line.
"""

import time
from pathlib import Path

from support.processes import BoardProcess, Daemon
from support.waiting import until

CONFIG = """
[agent]
name = "places"
[network]
kind = "none"
[state]
directory = "{folder}/state"
[buses.i2c1]
kind = "i2c"
timeout_s = 20
device = "/dev/i2c-1"
[buses.probe]
kind = "w1"
timeout_s = 20
[buses.chip]
kind = "spi"
timeout_s = 20
device = "/dev/spidev0.0"
[devices.climate]
driver = "sht3x"
bus = "i2c1"
every_s = 0.2
[devices.bad_chip]
driver = "tmp117"
bus = "i2c1"
every_s = 0.2
[devices.soil]
driver = "ds18b20"
bus = "probe"
resolution = 9
id = "28-000000000001"
every_s = 0.2
[devices.bad_probe]
driver = "ds18b20"
bus = "probe"
id = "28-000000000002"
every_s = 0.2
[devices.bad_adc]
driver = "mcp3008"
bus = "chip"
every_s = 0.2
"""
GOOD = {"climate", "soil"}
BAD = {"bad_chip", "bad_probe", "bad_adc"}
# A bad one is tried after 0.5, 1, 2 s: more often than a bus would need to be doubted.
TRIED_S = 6.0


def test_bad_ones_cost_their_neighbours_nothing(tmp_path: Path) -> None:
    config = tmp_path / "agent.toml"
    config.write_text(CONFIG.format(folder=tmp_path))
    board = BoardProcess(tmp_path, config)
    for bus, device in (("i2c1", "bad_chip"), ("probe", "bad_probe"), ("chip", "bad_adc")):
        board.do("fault", bus, "unplug", "--device", device)
    daemon = Daemon(tmp_path, config, {"DEVICE_AGENT_BOARD": str(board.socket)})
    try:
        daemon.wait_logged("ready")

        def online() -> set[str]:
            return {one["device"] for one in daemon.ask("status")["devices"] if one["state"] == "online"}

        until(lambda: online() == GOOD, "the good ones online, and only they")
        began_s = time.monotonic()

        def tried() -> bool:
            assert online() == GOOD
            return time.monotonic() - began_s > TRIED_S

        until(tried, "some tries of the bad ones")
        lost = {event["device"] for event in daemon.events() if event["event"] == "device_lost"}
        assert lost == BAD
        for bus in daemon.ask("status")["buses"]:
            assert bus["faults"] == 0, bus
            steps = {name: step["tried"] for name, step in bus["recovery"].items() if name != "retry"}
            assert not any(steps.values()), bus
    finally:
        daemon.stop()
        board.stop()
