# A reboot of everything above the kernel (systemctl soft-reboot) with a session open and the valve driven.
# The network's stand-in and its caller go on; the kernel, and so the boot id, are the same.
. /payload/files/lib.sh
home=/home/pi/device-agent-venv/bin/device-agent

# survivor NAME COMMAND…: a service that goes on over the reboot.
survivor() {
    local name=$1; shift
    cat >/run/systemd/system/$name.service <<UNIT
[Unit]
DefaultDependencies=no
IgnoreOnIsolate=yes
SurviveFinalKillSignal=yes
[Service]
Environment=BLOCKS_API_KEY=bk_device
ExecStart=$*
UNIT
    systemctl daemon-reload; systemctl start $name
}

if [ ! -e /run/second ]; then
    board; configuration
    survivor devnet $home dev-network --port 8700
    published $home
    key_file
    check "service install" $home service install --key-file /run/key
    within 180 "joined" status_has "^service_box  joined"
    survivor caller $home call service_box watch climate --for 2h --timeout 600 --dev http://127.0.0.1:8700
    within 300 "a session is open" status_has "1 session"
    valve_on
    touch /run/second
    systemctl soft-reboot
    sleep 600
fi
say "after the reboot"
within 300 "the service started by itself" status_has "valve .*online"
check "the valve is shut" level 0
within 180 "joined" status_has "^service_box  joined"
within 60 "the session goes on" status_has "1 session"
device-agent status
within 60 "the caller still hears" sh -c "journalctl -u caller -o cat --no-pager --since -30s | grep temperature"
tail -3 /run/last
say "done"
