#!/bin/bash
# The road of docs/first-ten-minutes.md, from a checkout, with a clock: run it in the checkout, as an ordinary user
# of a fresh Debian with git, make, python3 and python3-venv. A simulated board stands for the hardware.
set -e
began=$(date +%s.%N)
said() { printf '%6.1f s  %s\n' "$(echo "$(date +%s.%N) - $began" | bc 2>/dev/null || python3 -c "import time; print(time.time() - $began)")" "$1"; }
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check '.[caller,plot]'
export PATH="$work/venv/bin:$PATH" DEVICE_AGENT_CONFIG="$work/agent.toml" DEVICE_AGENT_BOARD="$work/board.sock"
said "installed: $(device-agent version)"

cat >"$DEVICE_AGENT_CONFIG" <<'TOML'
[agent]
name = "greenhouse_7"
[network]
kind = "none"
[state]
directory = "state"
[buses.i2c1]
kind = "i2c"
device = "/dev/i2c-1"
[buses.pins]
kind = "gpio"
chip = "pinctrl-bcm2711"
[devices.climate]
driver = "bme280"
bus = "i2c1"
address = 0x76
every_s = 5
[devices.valve]
driver = "gpio-output"
bus = "pins"
line = 27
active_low = true
safe = false
max_on_s = 600
TOML
device-agent check
said "the configuration is right"

device-agent board run --socket "$DEVICE_AGENT_BOARD" >/dev/null 2>&1 &
device-agent run --simulate 2>"$work/log" &
until device-agent status >/dev/null 2>&1; do sleep 0.2; done
device-agent read climate
said "the BME280's reading"

device-agent set valve on on
device-agent board show | grep -A3 -i pins || true
said "the relay is on, and was read back"
device-agent status
device-agent monitor --times 1
device-agent history climate
device-agent journal
device-agent safe
said "everything is safe again"
