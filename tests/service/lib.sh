# What the walks share. Each thing that was looked at is a line; the first that is not so ends the walk.
set -u
export LC_ALL=C.UTF-8 COLUMNS=200 DEBIAN_FRONTEND=noninteractive
here=/payload/files
pin=/sys/devices/platform/gpio-sim.0/gpiochip0/sim_gpio27
unit=device-agent guard=device-agent-guard

say() { echo "== $* (after ${SECONDS} s)"; }

failed() {
    echo "NOT SO: $1"
    journalctl -b -o short-monotonic --no-pager -u $unit -u $guard | tail -40
    exit 1
}

# check SENTENCE COMMAND…: it succeeds.
check() {
    local sentence=$1; shift
    "$@" >/run/last 2>&1 || { cat /run/last; failed "$sentence"; }
    echo "ok: $sentence"
}

# code N SENTENCE COMMAND…: its exit code is N.
code() {
    local wanted=$1 sentence=$2 got=0; shift 2
    "$@" >/run/last 2>&1 || got=$?
    [ "$got" = "$wanted" ] || { cat /run/last; failed "$sentence (exit code $got)"; }
    echo "ok: $sentence"
}

# within S SENTENCE COMMAND…: it succeeds at some moment in so many seconds, or $SLOWNESS times as many.
within() {
    local limit=$((SECONDS + $1 * ${SLOWNESS:-1})) sentence=$2; shift 2
    until "$@" >/run/last 2>&1; do
        [ $SECONDS -lt $limit ] || { cat /run/last; failed "$sentence"; }
        sleep 0.2
    done
    echo "ok: $sentence"
}

said() { grep -q -- "$1" /run/last || { cat /run/last; failed "it says: $1"; }; echo "ok: it says: $1"; }
without() { ! grep -q -- "$1" /run/last || failed "it does not say: $1"; echo "ok: it does not say: $1"; }
as_pi() { HOME=/home/pi runuser -u pi -g pi -G device-agent -- env PYTHONDONTWRITEBYTECODE= "$@"; }
level() { [ "$(cat $pin/value)" = "$1" ]; }
status_has() { device-agent status | grep -q -- "$1"; }
valve_on() { check "the owner opens the valve" device-agent set valve on on; level 1 || failed "the pin is high"; }
gone() { local path; for path; do if [ -e "$path" ] || [ -L "$path" ]; then echo "$path"; return 1; fi; done; }
main_pid() { systemctl show -p MainPID --value "$1"; }
logged() { journalctl -b --no-pager -o cat -u $unit -u $guard | grep -c -- "$1"; }

# low COMMAND…: run it, and print after how long the kernel sees the pin low.
low() {
    local begun=$EPOCHREALTIME level=1 now command
    "$@" &
    command=$!
    while :; do
        read -r level <$pin/value; now=$EPOCHREALTIME
        [ "$level" = 0 ] && break
        [ $((${now%.*} - ${begun%.*})) -lt $((60 * ${SLOWNESS:-1})) ] || failed "the pin goes low"
    done
    awk -v a="$begun" -v b="$now" -v what="$*" 'BEGIN { printf "measured: low %.2f s after: %s\n", b - a, what }'
    wait $command || failed "$*"
}

board() {
    echo pull-up >$pin/pull    # a line that nobody drives reads high, which is not safe
    rigsim i2c-bme280 sim 0x76
}

# configuration [MORE]: with these tables, too.
configuration() { cat $here/service.toml "${1:-/dev/null}" | install -Dm644 /dev/stdin /etc/device-agent/agent.toml; }

# published COMMAND: the network's stand-in answers, and the agent is published there by its owner.
published() {
    within 300 "the network's stand-in answers" python3 -c "import urllib.request as r; r.urlopen('http://127.0.0.1:8700/config.json')"
    check "publish" env BLOCKS_API_KEY=bk_device "$1" --config $here/service.toml publish --listing private --billing-mode free --yes
}

network() {
    systemd-run -q --unit devnet --uid pi "$1" dev-network --port 8700
    published "$1"
}

key_file() { install -m 600 /dev/stdin /run/key <<<bk_device; }
key() { install -m 600 -o device-agent /dev/stdin /etc/device-agent/api_key <<<bk_device; }
