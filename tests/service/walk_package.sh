# The package: installed, given a configuration and a key, upgraded, refused, put back, removed, purged.
. /payload/files/lib.sh
board
# Whether the guard takes over from a slow daemon is looked at in walk_calm; here its second is as long as all others.
printf '[safety]\nguard_timeout_s = %d\n' "${SLOWNESS:-1}" >/run/more.toml

say "installation by the package"
export SUDO_USER=pi
check "apt installs it, with nothing fetched" apt-get install -y $here/device-agent.deb
said "pi is in group device-agent"
said "make a configuration"
check "pi is a member" sh -c 'id -nG pi | grep -qw device-agent'
code 1 "service status: nothing runs yet" device-agent service status
configuration /run/more.toml
check "with a configuration it is started" device-agent service install
said "the service runs, and starts with the machine"
said "give a key"
check "service status" device-agent service status
check "an ordinary user sees the status" as_pi device-agent status
said "not joined: no API key"
within 60 "the sensor is read" status_has "temperature = "
device-agent status
echo "takeovers so far: $(logged guard_takes_over)"
check "no takeover by the guard" test "$(logged guard_takes_over)" = 0

say "a key later"
network device-agent
key
within 120 "joined, without a restart" status_has "^service_box  joined"
check "it was started once" test "$(logged '"event": "ready"')" = 1

say "a reload with a bad file"
valve_on
sed -i 's/line = 27/lime = 27/' /etc/device-agent/agent.toml
systemctl reload $unit
within 60 "the log names the mistake" sh -c "journalctl -b -u $unit -o cat | grep -q 'lime'"
check "the valve is left as it is" level 1
configuration /run/more.toml

say "upgrade while the valve is open"
code 75 "not now" device-agent may-update
said "valve is driven"
before=$(main_pid $unit)
code 100 "apt refuses after a minute of waiting" apt-get install -y $here/device-agent_2.deb
said "not now: valve is driven"
check "the package is the old one" sh -c "dpkg-query -W -f '\${Version} \${Status}' device-agent | grep -q '^0.1.0 .*installed'"
check "the same process goes on" test "$(main_pid $unit)" = "$before"
check "the valve is open" level 1

say "upgrade at a safe moment"
check "safe" device-agent safe
code 0 "now" device-agent may-update
check "apt upgrades" apt-get install -y $here/device-agent_2.deb
cat /run/last
check "another process" test "$(main_pid $unit)" != "$before"
check "from the other place" sh -c "readlink /opt/device-agent | grep -q device-agent.b"
check "the guard too" sh -c "readlink /proc/$(main_pid $guard)/cwd && [ $(logged guard_ended) -ge 1 ]"
within 120 "joined again, with its key" status_has "^service_box  joined"
check "configuration kept" sh -c "cat $here/service.toml /run/more.toml | cmp - /etc/device-agent/agent.toml"

say "upgrade to a version that does not become ready"
code 100 "apt says that it failed" apt-get install -y $here/device-agent_3.deb
said "does not become ready"
said "the version before runs again"
check "the package waits to be configured" sh -c "dpkg-query -W -f '\${Version} \${Status}' device-agent | grep -q half-configured"
check "the version before is used" sh -c "readlink /opt/device-agent | grep -q device-agent.b"
within 60 "and runs" status_has "climate"
check "a later version cures it" apt-get install -y $here/device-agent_4.deb
within 60 "and runs" status_has "climate"

say "removal"
valve_on
low apt-get remove -y device-agent
code 1 "the unit is gone" systemctl cat $unit
code 1 "the guard's too" systemctl cat $guard
check "nothing runs" sh -c "! pgrep -u device-agent"
check "program gone" gone /opt/device-agent* /usr/lib/device-agent /usr/bin/device-agent
check "configuration, key and state stay" ls /etc/device-agent/agent.toml /etc/device-agent/api_key /var/lib/device-agent/identity.json
check "installed again it goes on" apt-get install -y $here/device-agent.deb
within 60 "and runs" status_has "climate"
check "purge" apt-get purge -y device-agent
check "everything is gone" gone /etc/device-agent /var/lib/device-agent /etc/systemd/system/device-agent*
say "done"
