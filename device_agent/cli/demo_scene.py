"""What the demo shows: a small greenhouse as a configuration, and what happens around it."""

from dataclasses import dataclass

AGENT = "demo_greenhouse"
KEY = "bk_demo"
VALVE, DOOR, CLIMATE, TANK = "valve", "door", "climate", "tank"
DOOR_LINE, VALVE_LINE = 17, 27
# After this long without link the daemon closes the valve by itself.
LINK_GRACE_S = 10


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the caller's table."""

    device: str
    point: str
    label: str
    unit: str
    digits: int = 1


ROWS = (
    Row(CLIMATE, "temperature", "temperature", "°C", 2),
    Row(CLIMATE, "humidity", "humidity", "%", 1),
    Row(CLIMATE, "pressure", "pressure", "hPa", 1),
    Row(TANK, "weight", "water", "kg", 2),
    Row(DOOR, "active", "contact", ""),
    Row(VALVE, "on", "relay", ""),
)

DEVICES = f"""
[agent]
name = "{AGENT}"
display_name = "Demo greenhouse"
description = "A greenhouse that exists in this computer only."
organization = "Demo"
tags = ["demo"]

[buses.i2c1]
kind = "i2c"
device = "/dev/i2c-1"
[buses.pins]
kind = "gpio"
chip = "gpiochip0"
[buses.uart]
kind = "serial"
port = "/dev/ttyUSB0"

[devices.{CLIMATE}]
driver = "bme280"
bus = "i2c1"
address = 0x76
every_s = 0.5
[devices.{DOOR}]
driver = "gpio-input"
bus = "pins"
line = {DOOR_LINE}
debounce_s = 0.02
[devices.{TANK}]
driver = "serial-lines"
bus = "uart"
format = "regex"
pattern = '^W +(?P<weight>-?[0-9.]+) kg'
[devices.{TANK}.points]
weight = {{ unit = "kg", low = 0, high = 50 }}
[devices.{VALVE}]
driver = "gpio-output"
bus = "pins"
line = {VALVE_LINE}
every_s = 1
active_low = true
safe = false
max_on_s = 600

[streams.live]
direction = "bidirectional"
devices = ["{CLIMATE}", "{DOOR}", "{TANK}", "{VALVE}"]
link_loss_grace_s = {LINK_GRACE_S}

[access]
read = "anyone"
drive = ["user:user_demo"]
"""


def configuration(folder: str, cdm_url: str = "", origin: str = "") -> str:
    """The configuration file; without addresses it serves for `board run`."""
    network = f'cdm_url = "{cdm_url}"\npubnub_origin = "{origin}"\npubnub_tls = false\n' if cdm_url else ""
    return f'{DEVICES}\n[network]\n{network}\n[state]\ndirectory = "{folder}/state"\n'
