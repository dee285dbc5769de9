"""The service: its units, its key, and the way to the network."""

import re
import socket
import ssl
import stat
import urllib.error
import urllib.request
from collections.abc import Iterator

from device_agent.config.secret import CREDENTIAL, VARIABLE
from device_agent.doctor.finding import Finding, Patient, ok
from device_agent.doctor.units import GUARD, UNIT, unit_text, value_of

KEY_FILE = "/etc/device-agent/api_key"
INSTALL = "install it as systemd/README.md says"
REACH_LIMIT_S = 10.0


def check(patient: Patient) -> Iterator[Finding]:
    text = unit_text(patient.system, UNIT)
    if not text:
        why = "nothing starts the daemon after a power cut, and no watchdog ends one that hangs"
        yield Finding("note", "the service is not installed", UNIT, why, INSTALL)
    else:
        yield from _units(patient, text)
    yield from _key(patient, text)
    yield from _network(patient)


def _units(patient: Patient, text: str) -> Iterator[Finding]:
    if _enabled(patient, UNIT):
        yield ok("the service starts with the machine", UNIT)
    else:
        why = "after a power cut the device stays away"
        yield Finding(
            "problem", "the service is not enabled", UNIT, why, f"sudo systemctl enable --now {UNIT}"
        )
    if not value_of(text, "WatchdogSec"):
        why = "a daemon that hangs stays so"
        remedy = f"sudo systemctl edit {UNIT}: [Service] WatchdogSec=30"
        yield Finding("problem", "no watchdog is set", UNIT, why, remedy)
    guard = unit_text(patient.system, GUARD)
    if not guard or not (_enabled(patient, GUARD) or GUARD in value_of(text, "Wants")):
        why = "the guard then is a child of the daemon, and shares its memory limit and its end"
        remedy = f"{INSTALL}; sudo systemctl enable --now {GUARD}"
        yield Finding("problem", "the guard has no unit of its own", GUARD, why, remedy)


def _enabled(patient: Patient, unit: str) -> bool:
    return bool(patient.system.find(f"/etc/systemd/system/*.wants/{unit}"))


def _key(patient: Patient, text: str) -> Iterator[Finding]:
    """Whether there is a key, and who may read it. It is never read itself."""
    config = patient.config
    named = config.network.api_key_file if config is not None else None
    places = {}
    if named is not None:
        places[str(named)] = "network.api_key_file"
    if f"{CREDENTIAL}:" in text:
        source = re.search(rf"{CREDENTIAL}:(\S+)", text)
        places[source[1] if source else KEY_FILE] = f"credential {CREDENTIAL}"
    there = [path for path in places if patient.system.exists(path)]
    for path in there:
        status = patient.system.path(path).stat()
        if status.st_mode & 0o077:
            mode = f"{stat.S_IMODE(status.st_mode):04o}"
            why = "who has the key can be this agent; the daemon refuses such a file"
            yield Finding(
                "problem", f"others may read the API key (mode {mode})", path, why, f"sudo chmod 600 {path}"
            )
        else:
            yield ok("the API key is there, and its owner's alone", path)
    if not there and not patient.environ.get(VARIABLE):
        where = " or ".join(places) or f"${VARIABLE}"
        why = "the daemon samples and keeps actuators safe, but cannot join the network"
        remedy = f"sudo install -m 600 /dev/stdin {KEY_FILE}   (paste the key, then Ctrl-D)"
        yield Finding("problem", "there is no API key", where, why, remedy)


# -- network ------------------------------------------------------------------------------------------------


def _network(patient: Patient) -> Iterator[Finding]:
    if patient.reach is None or patient.config is None:
        return
    from device_agent.network.blocks.joiner import DEFAULT_CDM_URL

    url = patient.config.network.cdm_url or DEFAULT_CDM_URL
    if trouble := patient.reach(url):
        why = "the daemon goes on by itself and keeps trying; callers do not reach it"
        remedy = "check cable or Wi-Fi, `resolvectl query`, a firewall or proxy, and the clock"
        yield Finding("problem", trouble, url, why, remedy)
    else:
        yield ok("the network answers", url)


def reach(url: str) -> str:
    """Try it for real: "" when it answers at all, else what went wrong and at which step."""
    try:
        with urllib.request.urlopen(url, timeout=REACH_LIMIT_S):
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
