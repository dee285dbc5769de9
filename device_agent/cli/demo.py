"""A simulated board, a local network, the daemon, and a caller that watches and drives.

Needs no configuration, no hardware and no network. Without a terminal it plays for ten seconds and ends.
"""

import argparse
import contextlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from device_agent.cli.call_client import leave
from device_agent.cli.common import Exit, run_command, styled
from device_agent.cli.demo_play import Note, Play, Starting, View, load_sdk_early, number_text
from device_agent.cli.demo_screen import picture
from device_agent.cli.demo_world import CLIMATE, ROWS, World
from device_agent.cli.live import Screen, ended_by_signals
from device_agent.errors import AgentError

FRAME_S = 0.1
# The valve moves on its own, after a first pause, until a person takes over.
FIRST_MOVE_S, MOVE_EVERY_S = 2.5, 12.0
# Without a terminal: the same story for everybody, in seconds after the first reading.
STORY_S = 7.0
STORY_LIMIT_S = 40.0


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "demo", help="see it work: no configuration, no hardware, no network", description=__doc__
    )
    parser.add_argument("--lines", action="store_true", help="lines for ten seconds, as without a terminal")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 when everything worked, 1 with one sentence when something did not."""
    live = sys.stdin.isatty() and sys.stdout.isatty() and not args.lines
    return leave(run_command(_live if live else _lines))


@contextlib.contextmanager
def _playing(view: View, say: Callable[[str], None]) -> Iterator[Play]:
    load_sdk_early()
    with ended_by_signals(), World() as world:
        caller, session = Starting(world, say).run()
        with caller, session:
            play = Play(world, session, view)
            _until(play, lambda: view.readings > 0, STORY_LIMIT_S, "no reading has come to the caller")
            yield play


def _until(play: Play, done: Callable[[], object], limit_s: float, otherwise: str) -> None:
    deadline_s = time.monotonic() + limit_s
    while not done():
        if time.monotonic() > deadline_s:
            raise AgentError(f"{otherwise} within {limit_s:g} s")
        play.step()
        time.sleep(0.02)


# -- in a terminal ------------------------------------------------------------------------------------------


def _live() -> int:
    began_s = time.monotonic()
    print("Starting, which takes about three seconds:")
    view = View()
    with _playing(view, lambda text: print(f"  {styled('✓', 'green')} {text}", flush=True)) as play:
        view.note(f"first reading at the caller, {time.monotonic() - began_s:.1f} s after the start", "green")
        with contextlib.suppress(KeyboardInterrupt), Screen() as screen:
            move_s = time.monotonic() + FIRST_MOVE_S
            while True:
                play.step()
                if time.monotonic() > move_s:
                    move_s += MOVE_EVERY_S
                    if not play.world.cut and not play.unplugged:
                        play.toggle_valve()
                screen.draw(picture(play, began_s, *screen.size()))
                match screen.key(FRAME_S):
                    case "q" | "\x04":
                        break
                    case " " | "r":
                        move_s = float("inf")
                        play.toggle_valve()
                    case "u":
                        play.toggle_sensor()
                    case "n":
                        play.toggle_link()
        print("Stopping: the session ends, the valve goes to its safe state, the processes end.", flush=True)
    print(_summary(view), _next(), sep="\n")
    return Exit.DONE


# -- without a terminal -------------------------------------------------------------------------------------


def _lines() -> int:
    began_s = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began_s:5.1f} s  {text}", flush=True)

    def note(one: Note) -> None:
        say(one.text)

    view = View(note)
    with _playing(view, say) as play:
        say(f"first reading at the caller  {_present(view)}")
        _tell(play, say)
    say(_summary(view))
    print(_next())
    return Exit.DONE


def _tell(play: Play, say: Callable[[str], None]) -> None:
    """Drive the valve, lose a sensor, get it back, drive again; raises AgentError where that did not work."""
    view, began_s = play.view, time.monotonic()
    acts = [
        (0.3, play.toggle_valve),
        (2.0, play.toggle_sensor),
        (4.0, play.toggle_sensor),
        (5.0, play.toggle_valve),
    ]
    said_s = began_s
    while (now_s := time.monotonic()) - began_s < STORY_S:
        if acts and now_s - began_s >= acts[0][0]:
            acts.pop(0)[1]()
        play.step()
        if now_s - said_s >= 1.0:
            said_s = now_s
            say(f"reading                      {_present(view)}")
        time.sleep(0.02)
    _until(play, lambda: view.verified >= 2, STORY_LIMIT_S, "the valve's two commands were not both verified")
    away = view.states.get
    _until(play, lambda: away(CLIMATE) == "online", STORY_LIMIT_S, "the sensor did not come back")


def _present(view: View) -> str:
    words = []
    for row in ROWS:
        if row.point == "pressure":
            continue
        away = view.states.get(row.device, "online") != "online"
        value = view.trace(row.device, row.point).value
        text = "offline" if away else number_text(row, value)
        label = row.label if row.unit else row.device
        unit = "" if away or value is None else row.unit
        words.append(f"{label} {text} {unit}".rstrip())
    return ", ".join(words)


def _next() -> str:
    here = Path(sys.executable).with_name("device-agent")
    command = "device-agent" if shutil.which("device-agent") else str(here)
    return (
        f"Next: `{command} scan` shows what this board has, `{command} init --out agent.toml` makes a\n"
        "configuration of it; `run --simulate` plays it without hardware. README.md: a sensor and a relay."
    )


def _summary(view: View) -> str:
    late = f" ({view.late} of them late)" if view.late else ""
    return (
        f"{view.readings} readings came{late}, {view.missing + view.lost} are missing; "
        f"{view.verified} commands were carried out and read back"
    )
