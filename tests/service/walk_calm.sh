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
HOME=/home/pi systemd-run -q --unit caller --uid pi --setenv=BLOCKS_API_KEY=bk_caller $home call service_box watch climate --for 1h --timeout 600 --dev http://127.0.0.1:8700
within 120 "a session is open" status_has "1 session"
for round in 1 2 3 4 5 6; do
    device-agent status >/dev/null; device-agent history climate >/dev/null; device-agent journal >/dev/null
    systemctl reload $unit; sleep 5
done
check "the caller still hears" sh -c "journalctl -u caller -o cat --no-pager --since -1m | grep temperature"
tail -3 /run/last
check "the valve is open" level 1
check "no takeover" test "$(logged guard_takes_over)" = 0
check "the daemon never stood still" test "$(logged actuators_unknown)" = 0
say "done"
