"""The service: its units, its key, and the way to the network."""

import re
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator

from device_agent.config.secret import CREDENTIAL, KEY_FILE, VARIABLE
from device_agent.discovery.system import System, SystemUser
from device_agent.doctor.finding import Finding, Target, ok
from device_agent.store.files import open_to_others

UNIT, GUARD = "device-agent.service", "device-agent-guard.service"
FOLDERS = ("/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")


def unit_text(system: System, unit: str) -> str:
    """The unit with its drop-ins; "" where it is not installed."""
    text = next((found for folder in FOLDERS if (found := system.text(f"{folder}/{unit}"))), "")
    if not text:
        return ""
    more = [system.text(path) for folder in FOLDERS for path in system.find(f"{folder}/{unit}.d/*.conf")]
    return "\n".join([text, *more])


def value_of(text: str, key: str) -> str:
    """The last value of a key of a unit; "" where it is not there."""
    values = re.findall(rf"^\s*{key}\s*=\s*(.*?)\s*$", text, re.MULTILINE)
    return str(values[-1]) if values else ""


SERVICE_KEY_FILE = f"/etc/device-agent/{KEY_FILE}"
INSTALL = "sudo device-agent service install"
REACH_LIMIT_S = 10.0


def check(target: Target) -> Iterator[Finding]:
    text = unit_text(target.system, UNIT)
    if not text:
        why = "nothing starts the daemon after a power cut, and no watchdog ends one that hangs"
        yield Finding("note", "the service is not installed", UNIT, why, INSTALL)
    else:
        yield from _units(target, text)
    yield from _key(target, text)
    yield from _network(target)


def _units(target: Target, text: str) -> Iterator[Finding]:
    if _enabled(target, UNIT):
        yield ok("the service starts with the machine", UNIT)
    else:
        why = "after a power cut the device stays away"
        remedy, fix = f"sudo systemctl enable --now {UNIT}", ("systemctl", "enable", UNIT)
        yield Finding("problem", "the service is not enabled", UNIT, why, remedy, fix)
    if not value_of(text, "WatchdogSec"):
        why = "a daemon that hangs stays so"
        remedy = f"sudo systemctl edit {UNIT}: [Service] WatchdogSec=30"
        yield Finding("problem", "no watchdog is set", UNIT, why, remedy)
    guard = unit_text(target.system, GUARD)
    if not guard or not (_enabled(target, GUARD) or GUARD in value_of(text, "Wants")):
        why = "the guard then is a child of the daemon, and shares its memory limit and its end"
        remedy = f"{INSTALL}; sudo systemctl enable --now {GUARD}"
        yield Finding("problem", "the guard has no unit of its own", GUARD, why, remedy)


def _enabled(target: Target, unit: str) -> bool:
    return bool(target.system.find(f"/etc/systemd/system/*.wants/{unit}"))


def _key(target: Target, text: str) -> Iterator[Finding]:
    """Whether there is a key, and who may read it. It is never read itself."""
    config = target.config
    if config is not None and config.network.kind == "none":
        yield ok('no key is needed: network.kind = "none"', str(config.path))
        return
    places = []
    if config is not None:
        places.append(str(config.network.api_key_file or config.path.parent / KEY_FILE))
    if f"{CREDENTIAL}:" in text:
        source = re.search(rf"LoadCredential\w*={CREDENTIAL}:(\S+)", text)
        places.append(source[1] if source else SERVICE_KEY_FILE)
    there = [path for path in dict.fromkeys(places) if target.system.exists(path)]
    for path in there:
        if open_to_others(target.system.path(path)):
            why = "who has the key can be this agent; the daemon refuses such a file"
            fix = ("chmod", "600", path)
            yield Finding("problem", "others may read the API key", path, why, f"sudo chmod 600 {path}", fix)
        else:
            yield ok("the API key is there, and its owner's alone", path)
    if not there and not target.environ.get(VARIABLE):
        where = ", ".join((*dict.fromkeys(places), f"${VARIABLE}"))
        why = "the daemon samples, records and keeps actuators safe, but cannot join the network"
        user = value_of(text, "User") or "$USER"
        file = places[0] if places else SERVICE_KEY_FILE
        remedy = f"sudo install -m 600 -o {user} /dev/stdin {file}   (paste the key, then Ctrl-D)"
        yield Finding("problem", "not joined: no API key", where, why, remedy)


# -- network ------------------------------------------------------------------------------------------------


def _network(target: Target) -> Iterator[Finding]:
    if target.reach is None or target.config is None:
        return
    from device_agent.network.blocks.joiner import DEFAULT_CDM_URL

    url = target.config.network.cdm_url or DEFAULT_CDM_URL
    if trouble := target.reach(url, target.config.network.proxy):
        why = "the daemon goes on by itself and keeps trying; callers do not reach it"
        remedy = "check cable or Wi-Fi, `resolvectl query`, a firewall or proxy, and the clock"
        yield Finding("problem", trouble, url, why, remedy)
    else:
        yield ok("the network answers", url)


def reach(url: str, proxy: str | None = None) -> str:
    """Try the URL: "" when it answers at all, else what went wrong and at which step."""
    by = urllib.request.ProxyHandler(None if proxy is None else {"http": proxy, "https": proxy})
    try:
        with urllib.request.build_opener(by).open(url, timeout=REACH_LIMIT_S):
            return ""
    except urllib.error.HTTPError as error:
        return "" if error.code < 500 else f"it answers with {error.code}"
    except urllib.error.URLError as error:
        if isinstance(error.reason, socket.gaierror):
            return f"its name is not found (DNS): {error.reason.strerror}"
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            return f"its certificate is refused (TLS): {error.reason.verify_message}"
        return f"it cannot be reached: {error.reason}"
    except (OSError, ValueError) as error:
        return f"it cannot be reached: {error}"


def user_of_the_service(system: System) -> SystemUser | None:
    """The user of the installed unit, with the groups it adds; None without a unit."""
    text = unit_text(system, UNIT)
    user = system.user(value_of(text, "User")) if text else None
    if user is None:
        return None
    known = system.groups()
    more = {known[name] for name in value_of(text, "SupplementaryGroups").split() if name in known}
    return SystemUser(user.name, user.uid, user.groups | more)
