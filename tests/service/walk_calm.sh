# A board twelve times slower than a workstation, with much to do: its guard takes over from no daemon that lives.
. /payload/files/lib.sh
board
home=/home/pi/device-agent-venv/bin/device-agent
configuration
network $home
key_file
check "service install" $home service install --key-file /run/key
within 120 "joined" status_has "^service_box  joined"
for round in 1 2 3; do
    check "restart $round" systemctl restart $unit
    within 60 "valve online" sh -c "device-agent status | grep -q 'valve .*online'"
done
check "none at a start" test "$(logged guard_takes_over)" = 0

say "work while the valve is open"
valve_on
HOME=/home/pi systemd-run -q --unit caller --uid pi --setenv=BLOCKS_API_KEY=bk_caller $home --config $here/service.toml call service_box watch climate --for 5m
for round in 1 2 3 4 5 6; do
    device-agent status >/dev/null; device-agent history climate >/dev/null; device-agent journal >/dev/null
    systemctl reload $unit; sleep 5
done
journalctl -u caller -o cat --no-pager | tail -3
check "the valve is open" level 1
check "no takeover" test "$(logged guard_takes_over)" = 0
check "the daemon never stood still" test "$(logged actuators_unknown)" = 0
say "done"
