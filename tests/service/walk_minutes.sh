# The road of docs/first-ten-minutes.md from the package, with a clock: a BME280, and a relay that a low level switches on.
. /payload/files/lib.sh
board
export SUDO_USER=pi
begun=$EPOCHREALTIME

# reached S WHAT: the time since the package's installation began, which has a limit.
reached() {
    local now=$EPOCHREALTIME limit=$(($1 * ${SLOWNESS:-1}))
    awk -v a="$begun" -v b="$now" -v what="$2" 'BEGIN { printf "%6.1f s  %s\n", b - a, what }'
    [ $(((${now/./} - ${begun/./}) / 1000000)) -lt $limit ] || failed "within $limit s"
}

check "apt installs it" apt-get install -y $here/device-agent.deb
reached 300 "the package is installed: $(device-agent version)"
check "init" device-agent init --yes --name greenhouse_7 --relay 27 --button 17 --out /etc/device-agent/agent.toml
check "check" device-agent check
cat /run/last
check "service install" device-agent service install
reached 300 "the service runs"
check "the sensor is read by an ordinary user" as_pi device-agent read bme280
cat /run/last
said "temperature .*°C"
reached 300 "the BME280's reading"

check "the relay's line is at its safe, high level" level 1
check "the relay is switched on" as_pi device-agent set relay_27 on on
said "on = on (read back)"
check "the kernel's level is low" level 0
reached 600 "the relay is on, and was read back"
as_pi device-agent status
check "safe" as_pi device-agent safe
check "the line is at its safe level" level 1
reached 600 "everything is safe again"
say "done"
