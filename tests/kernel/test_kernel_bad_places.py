"""What is wrong with one device is nobody else's: the daemon on real buses, beside a bad line."""

import time

import pytest

from support.processes import Daemon
from support.virtual_hardware import LIMIT_S, until

CONFIG = """
[agent]
name = "places"
[network]
kind = "none"
[state]
directory = "{folder}/state"
[buses.pins]
kind = "gpio"
timeout_s = 20
chip = "pinctrl-bcm2711"
backend = "{backend}"
[buses.plain]
kind = "i2c"
timeout_s = 20
device = "/dev/i2c-{plain}"
[buses.probe]
kind = "w1"
timeout_s = 20
[devices.door]
driver = "gpio-input"
bus = "pins"
line = 17
every_s = 0.5
[devices.valve]
driver = "gpio-output"
bus = "pins"
line = 27
safe = false
every_s = 0.5
[devices.bad_line]
driver = "gpio-output"
bus = "pins"
line = 99
safe = false
[devices.climate]
driver = "bme280"
bus = "plain"
address = 0x76
every_s = 0.5
[devices.bad_chip]
driver = "tmp117"
bus = "plain"
address = 0x4A
every_s = 0.5
[devices.bad_probe]
driver = "ds18b20"
bus = "probe"
id = "28-0000000000ff"
every_s = 0.5
"""
GOOD = {"door", "valve", "climate"}
TRIED_S = 12.0


@pytest.mark.parametrize("backend", ["gpiod", "gpiozero"])
def test_a_bad_line_takes_no_bus_down(rig, tmp_path, backend):
    if backend == "gpiozero":
        pytest.importorskip("lgpio")
    rig.make_bme280(rig.i2c)
    rig.i2c.present(0x76)
    config = tmp_path / "agent.toml"
    config.write_text(CONFIG.format(folder=tmp_path, backend=backend, plain=rig.i2c.bus))
    daemon = Daemon(tmp_path, config, {}, ())
    try:
        daemon.wait_logged("ready", 3 * LIMIT_S)

        def online() -> set[str]:
            return {one["device"] for one in daemon.ask("status")["devices"] if one["state"] == "online"}

        until(lambda: online() == GOOD, "the good ones online, and only they", 3 * LIMIT_S)
        began_s = time.monotonic()

        def tried() -> bool:
            assert online() == GOOD
            return time.monotonic() - began_s > TRIED_S

        until(tried, "some tries of the bad ones")
        assert "99" in daemon.device("bad_line")["detail"]
        lost = {event["device"] for event in daemon.events() if event["event"] == "device_lost"}
        assert lost == {"bad_line", "bad_chip", "bad_probe"}
        for bus in daemon.ask("status")["buses"]:
            assert bus["faults"] == 0, bus
            assert not any(step["tried"] for name, step in bus["recovery"].items() if name != "retry"), bus
    finally:
        daemon.stop()
