# The service as README.md installs it, and everything that may end it while a valve is open.
. /payload/files/lib.sh
board
home=/home/pi/device-agent-venv/bin/device-agent

say "installation from a virtual environment in a home"
configuration
network $home
key_file
export SUDO_USER=pi
check "service install" $home service install --key-file /run/key
cat /run/last
within 120 "joined" status_has "^service_box  joined"
within 60 "the sensor is read" status_has "temperature = "
check "no takeover by the guard at the start" test "$(logged guard_takes_over)" = 0

ready_again() {
    within 60 "the daemon is back" sh -c "device-agent status | grep -q 'valve .*online'"
    check "the pin stays low" level 0
}

say "kill -9"
valve_on; low systemctl kill -s KILL --kill-whom=main $unit; ready_again

say "SIGSTOP"
valve_on; low systemctl kill -s STOP --kill-whom=main $unit
sleep 3; systemctl kill -s CONT --kill-whom=main $unit; ready_again

say "out of memory"
valve_on
pid=$(main_pid $unit)
low systemctl set-property --runtime $unit MemoryMax=8M
within 60 "the kernel ended it" sh -c "! kill -0 $pid"
journalctl -b -k -o cat --no-pager | grep -m1 'Out of memory\|oom-kill'
systemctl set-property --runtime $unit MemoryMax=192M; ready_again

say "daemon and guard killed at once"
valve_on
low systemctl kill -s KILL $guard $unit
ready_again

say "restart"
valve_on; low systemctl restart $unit; ready_again

say "stop, and start"
valve_on; low systemctl stop $unit
sleep 3; check "the guard holds the line low" level 0
systemctl start $unit; ready_again
device-agent journal | tail -20
say "done"
