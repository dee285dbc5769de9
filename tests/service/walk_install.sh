# `service install` from a virtual environment and from pipx: again, and taken away.
. /payload/files/lib.sh
board
home=/home/pi/device-agent-venv/bin/device-agent pipx=/home/pi/.local/bin/device-agent
configuration
export SUDO_USER=pi

say "from a virtual environment, twice"
check "service install" $home service install
check "again" $home service install
without "is written"
check "service status" $home service status
within 60 "it works" status_has "valve .*online"
check "an ordinary user sees the status" as_pi device-agent status

say "what a person decided stays"
check "disable" systemctl disable --now $unit
check "service install" device-agent service install
said "stays disabled"
code 1 "and is not started" systemctl is-enabled -q $unit
check "enable" systemctl enable --now $unit

say "uninstall"
mkdir -p /etc/systemd/system/$unit.service.d; touch /etc/systemd/system/$unit.service.d/mine.conf
check "service uninstall" device-agent service uninstall
check "nothing is left of the program" gone /opt/device-agent* /usr/local/bin/device-agent /etc/systemd/system/device-agent*.service /etc/udev/rules.d/*device-agent*
check "nothing runs" sh -c '! pgrep -u device-agent'
check "the drop-in, configuration and state stay" ls /etc/systemd/system/$unit.service.d/mine.conf /etc/device-agent/agent.toml /var/lib/device-agent
code 1 "service status" $home service status
said "not installed"
check "again is no error" $home service uninstall

say "from pipx"
check "service install" $pipx service install
within 60 "it works" status_has "valve .*online"
check "purge" $pipx service uninstall --purge
check "everything is gone" gone /etc/device-agent /var/lib/device-agent /opt/device-agent*
say "done"
