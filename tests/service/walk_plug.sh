# Adapters that are plugged after the service's start, whose drivers the kernel did not have then.
. /payload/files/lib.sh
home=/home/pi/device-agent-venv/bin/device-agent
rigsim unplug usb; rigsim unplug acm; rigsim i2c-unplug sim; rigsim gpio-unplug
modprobe -r ftdi_sio; modprobe -r usbserial; modprobe -r cdc_acm; modprobe -r i2c_dev
check "the kernel has none of their drivers" sh -c '! grep -E "ttyUSB|ttyACM|i2c$" /proc/devices'

install -Dm644 $here/plug.toml /etc/device-agent/agent.toml
check "service install" $home service install
said "the service runs"
device-agent status

# Whether what the unit allows holds for a driver that is not there yet, from the service's own control group.
# No driver: ENXIO. Not allowed: EPERM, which comes first.
opens() {
    mknod /dev/probe c "$1" 250    # /run is mounted without devices
    bash -c 'echo $$ >/sys/fs/cgroup/system.slice/'$2'.service/cgroup.procs; : <>/dev/probe' 2>/run/last
    rm /dev/probe; cat /run/last
}
for major in 89 153 188 166 204 4; do
    for who in $unit $guard; do
        opens $major $who | grep -q "No such device" || { cat /run/last; failed "$who may use major $major"; }
    done
done
echo "ok: I2C, SPI, ttyUSB, ttyACM, ttyAMA and ttyS are allowed to both by number"
opens 10 $unit | grep -q "not permitted" || { cat /run/last; failed "and others are not"; }

rigsim plug usb; rigsim plug acm; modprobe i2c_dev; rigsim i2c-plug sim; rigsim i2c-bme280 sim 0x76; rigsim gpio-plug
ls -l /dev/ttyUSB0 /dev/ttyACM0 /dev/i2c-2 /dev/gpiochip*
online() { device-agent status | grep -q "^$1 .*online"; }
talks() { rigsim serial-send "$1" 5720312e350a5720312e350a; online "$2"; }
within 120 "ttyUSB" talks usb scale
within 120 "ttyACM" talks acm meter
within 120 "I2C" online climate
within 120 "GPIO" online valve
check "without a restart" test "$(logged '"event": "ready"')" = 1
device-agent status
say "done"
