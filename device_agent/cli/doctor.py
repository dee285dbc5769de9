"""`device-agent doctor`: what is missing on this machine, why it matters, and the remedy."""

import argparse
import getpass
import os
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from device_agent.cli.common import Exit, config_path, print_json, styled
from device_agent.cli.running_daemon import ask_daemon, daemon_answers
from device_agent.cli.show import note
from device_agent.clock import SystemClock
from device_agent.config import Config, load
from device_agent.discovery.system import System, SystemUser
from device_agent.doctor import devices
from device_agent.doctor.checks import examine
from device_agent.doctor.finding import Finding, Target
from device_agent.doctor.service import reach, user_of_the_service
from device_agent.errors import AgentError, ConfigError
from device_agent.text.printable import printable

FIX_LIMIT_S = 60.0
MARKS = {
    "ok": ("ok", "green"),
    "note": ("note", "cyan"),
    "question": ("ask", "yellow"),
    "problem": ("!!", "red"),
}


def register(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "doctor",
        help="what is missing on this machine, and the remedy",
        description="Examine buses, rights, clock, storage, supply, watchdog, service, key and network; ask "
        "about each actuator what software cannot see. Changes nothing but the answers, kept in the state "
        "directory, and with --fix what needs no judgement. Exit code 0: nothing is wrong (notes and open "
        "questions may remain); 1: something is.",
    )
    parser.add_argument("--json", action="store_true", help="as JSON; asks nothing")
    parser.add_argument("--all", action="store_true", help="also show what is right")
    parser.add_argument(
        "--user", metavar="NAME", help="who runs the daemon (else the service's user, else you)"
    )
    parser.add_argument("--fix", action="store_true", help="do what needs no judgement, as root also groups")
    parser.add_argument("--offline", action="store_true", help="do not try the network")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    system = System()
    config, first = _config(args)
    target = Target(
        system,
        _user(system, args.user),
        config,
        os.environ,
        None if args.offline else reach,
        SystemClock().now_ms,
        daemon_answers(config_path(args)),
    )
    if args.fix:
        _fix(examine(target))
    ask = _ask if sys.stdin.isatty() and sys.stdout.isatty() and not args.json else None
    findings = [*first, *examine(target, ask)]
    if config is not None and target.daemon_runs:
        with suppress(AgentError):  # it may end meanwhile
            findings += devices.check(ask_daemon(config_path(args), {"op": "status"}))
    if args.json:
        print_json([asdict(finding) for finding in findings])
    else:
        show(findings, everything=args.all)
    return Exit.FAILED if any(finding.level == "problem" for finding in findings) else Exit.DONE


def _fix(findings: Iterable[Finding]) -> None:
    """Run what mends them; what it says goes to standard error, and what is left is found anew."""
    for finding in findings:
        if not finding.fix:
            continue
        try:
            done = subprocess.run(
                finding.fix, capture_output=True, text=True, timeout=FIX_LIMIT_S, check=False
            )
            said = printable(done.stderr.strip() or f"exit code {done.returncode}", 200)
        except (OSError, subprocess.TimeoutExpired) as error:
            done, said = None, str(error)
        mended = done is not None and done.returncode == 0
        note(f"{'mended' if mended else 'not mended'}: {finding.what}: {shlex.join(finding.fix)}")
        if not mended:
            note(f"  {said}{'' if os.geteuid() == 0 else '; try it with sudo'}")


def _config(args: argparse.Namespace) -> tuple[Config | None, list[Finding]]:
    path = config_path(args)
    try:
        return load(path), []
    except ConfigError as error:
        if not path.exists():
            return None, [
                Finding("note", "there is no configuration", str(path), "its devices are not examined",
                        f"device-agent init --out {path}")
            ]  # fmt: skip
        remedy = f"device-agent --config {path} check"
        return None, [Finding("problem", one, str(path), "the daemon does not start", remedy)
                      for one in error.problems]  # fmt: skip


def _user(system: System, named: str | None) -> SystemUser:
    if named is not None:
        user = system.user(named)
        if user is None:
            raise AgentError(f"there is no user {named!r} in /etc/passwd: name another with --user")
        return user
    own = os.environ.get("SUDO_USER") or _own_name()
    groups = frozenset(os.getgroups()) if "SUDO_USER" not in os.environ else frozenset[int]()
    mine = SystemUser(own, os.geteuid(), groups)
    return user_of_the_service(system) or (system.user(own) if "SUDO_USER" in os.environ else None) or mine


def _own_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.geteuid())


def _ask(question: str) -> bool | None:
    """Yes, no, or nothing for now."""
    print(f"{styled('?', 'yellow', 'bold')} {question} [y/n, Enter: later] ", end="", flush=True)
    word = sys.stdin.readline().strip().lower()
    return {"y": True, "yes": True, "n": False, "no": False}.get(word)


def show(findings: list[Finding], *, everything: bool) -> None:
    """For people: problems come last, next to the prompt."""
    order: Mapping[str, int] = {"ok": 0, "note": 1, "question": 2, "problem": 3}
    for finding in sorted(findings, key=lambda one: order[one.level]):
        if finding.level == "ok" and not everything:
            continue
        word, colour = MARKS[finding.level]
        where = f" ({finding.where})" if finding.where else ""
        print(f"{styled(word.rjust(4), colour, 'bold')}  {finding.what}{where}")
        if finding.why:
            print(f"      why: {finding.why}")
        if finding.remedy:
            print(f"      do:  {finding.remedy}")
    counts = {level: sum(one.level == level for one in findings) for level in order}
    print(
        f"{counts['problem']} wrong, {counts['question']} open questions, {counts['note']} notes, "
        f"{counts['ok']} right"
    )
