# Run as root in the box's root before it is booted, in the checkout: the program as README.md has it, as user
# pi, and once more by pipx. Nothing of the service: that is what the walks do.
set -eux
chown -R pi /home/pi
HOME=/home/pi runuser -u pi -- bash -eux <<'PI'
python3 -m venv ~/device-agent-venv && ~/device-agent-venv/bin/pip install -q '.[caller,plot]'
pipx install -q .
PI
