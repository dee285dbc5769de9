"""The running daemon: where its control socket is, and what it answers.

A daemon goes on with what it read when it began or was reloaded; its file may be in the middle of an edit.
Only [state] is read of it here, so that no fault elsewhere stands between a person and an emergency stop.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from device_agent.cli.common import Unavailable, Unresponsive
from device_agent.cli.show import Units, units_of_description
from device_agent.config import load
from device_agent.config.models import STATE_DIRECTORY, StateConfig
from device_agent.config.reader import load_state
from device_agent.errors import AgentError, Fault, Rejected
from device_agent.operate.control_socket import ANSWER_LIMIT_S, MAKE_SAFE, ask

# Where systemd/device-agent.service has its runtime directory, which its environment tells the daemon alone.
SERVICE_RUNTIME = Path("/run/device-agent")

# What does not wait for hardware, or (making safe) for 7 s at most.
QUICK, QUICK_LIMIT_S = {*MAKE_SAFE, "release", "status", "describe"}, 10.0

# Once for a command: who watches goes on with the daemon that it found, whatever is edited meanwhile.
_state = cache(load_state)


def socket_of(state: StateConfig, service_runtime: Path = SERVICE_RUNTIME) -> Path:
    """The control socket: the service's where the state is the service's and nothing else was written."""
    by_default = state.runtime_directory == state.directory / "run"
    ours = state.runtime_directory / "control.sock"
    if state.directory == Path(STATE_DIRECTORY) and by_default and not _is_there(ours):
        theirs = service_runtime / "control.sock"
        return theirs if service_runtime.is_dir() else ours
    return ours


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:  # in the state directory, which is its owner's alone
        return False


def ask_daemon(file: Path, question: Mapping[str, Any]) -> Any:
    """The result from the daemon that runs with this configuration file.

    Raises Unavailable where none runs, Unresponsive where it hangs, else what the daemon says.
    """
    path = socket_of(_state(file))
    limit_s = QUICK_LIMIT_S if question["op"] in QUICK else ANSWER_LIMIT_S
    try:
        answer = ask(path, question, limit_s)
    except TimeoutError as error:
        raise Unresponsive(
            f"the daemon on {path} has not answered for {limit_s:g} s: look at what it drives (its guard "
            "should have made that safe), and restart it"
        ) from error
    except PermissionError as error:
        raise Rejected(
            "not_allowed", f"{path}: permission denied; use the daemon's user or a member of its group"
        ) from error
    except OSError as error:
        raise Unavailable(
            f"no daemon answers on {path} ({error.strerror or error}): start it with `device-agent run`"
        ) from error
    if not answer.get("ok"):
        fault = Fault.from_members(answer.get("error", {}))
        raise Rejected(fault.code, fault.message)
    return answer["result"]


def require_answer(file: Path, question: Mapping[str, Any]) -> Any:
    """The same for what only a daemon can answer: a file that no daemon starts with is told first.

    Raises ConfigError too.
    """
    try:
        return ask_daemon(file, question)
    except Unavailable:
        load(file)
        raise


def daemon_answers(file: Path) -> bool:
    """Whether a daemon runs with this configuration file, even if it does not speak to this user."""
    try:
        ask_daemon(file, {"op": "status"})
    except Unavailable:
        return False
    except (Rejected, Unresponsive):
        return True
    return True


def units_of_daemon(file: Path) -> Units:
    """Of the points of its devices, by device; empty where it has gone meanwhile."""
    try:
        return units_of_description(ask_daemon(file, {"op": "describe"}))
    except AgentError:
        return {}
