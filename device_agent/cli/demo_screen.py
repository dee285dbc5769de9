"""The demo's screen: data flow, the caller's values, the log, the keys."""

import textwrap
import time

from device_agent.cli.demo_play import Play, View, number_text
from device_agent.cli.demo_world import DOOR, DOOR_LINE, LINK_GRACE_S, ROWS, VALVE
from device_agent.cli.live import Line, Span
from device_agent.cli.point_table import PointLine, point_table

ARROW = 5
NARROW = 80
UNPLUGGED = (
    "The climate sensor is out. The daemon says so instead of repeating old values, and keeps trying. "
    "Plug it in again (u)."
)
KEYS = (("space", "valve"), ("u", "unplug or plug the sensor"), ("n", "cut or mend the link"), ("q", "quit"))


def picture(play: Play, began_s: float, columns: int, rows: int) -> list[Line]:
    """All lines of one frame, at most `rows`."""
    now_s = time.monotonic()
    head = [_title(now_s - began_s, columns), []]
    flow = [*_flow(play, now_s, columns), []]
    words: list[Line] = [
        [(line, "bold")] for line in textwrap.wrap(explanation(play, now_s), max(20, columns - 2))
    ]
    # Always as many lines, so that nothing below moves.
    words = [*words, [], [], []][: 2 if columns >= NARROW else 3]
    words.append([])
    table = [*_table(play.view, now_s, columns), []]
    keys = _keys(play, columns)
    room = rows - len(keys)
    lines: list[Line] = []
    # In a small terminal the less important parts are left out first.
    shown: dict[int, list[Line]] = {}
    for rank, part in ((0, head), (3, table), (1, flow), (2, words)):
        if sum(len(one) for one in shown.values()) + len(part) <= room:
            shown[rank] = part
    for _, part in sorted(shown.items()):
        lines += part
    left = room - len(lines)
    if left >= 2:
        lines += _log(play.view, began_s, left)
    lines += [[] for _ in range(room - len(lines))]
    return [*lines, *keys]


def _title(age_s: float, columns: int) -> Line:
    name, what = " device-agent demo ", "  everything runs on this computer, nothing is real but the software"
    clock = f"{int(age_s) // 60:02d}:{int(age_s) % 60:02d} "
    gap = columns - len(name) - len(what) - len(clock)
    if gap < 1:
        return [(name, "bold reverse")]
    return [(name, "bold reverse"), (what, "dim"), (" " * gap + clock, "dim")]


# -- the flow -----------------------------------------------------------------------------------------------


def _flow(play: Play, now_s: float, columns: int) -> list[Line]:
    stations = _stations(play)
    if columns < NARROW:
        spans: list[Span] = []
        for name, _, state, style in stations:
            spans += [(f"{name.lower()} ", "bold"), (state, style), ("  ", "")]
        half = 3 * 3
        return [spans[:half], spans[half:]]
    width = min(16, (columns - 4 * ARROW) // 5)
    names: list[Span] = []
    for number, (name, _, _, _) in enumerate(stations):
        if number:
            names.append(_arrow(play, number, now_s))
        names.append((name.center(width), "bold"))
    blank = " " * ARROW
    return [
        names,
        [(blank.join(what.center(width) for _, what, _, _ in stations), "dim")],
        [
            span
            for number, (_, _, state, style) in enumerate(stations)
            for span in ((blank if number else "", ""), (state.center(width), style))
        ],
    ]


def _stations(play: Play) -> list[tuple[str, str, str, str]]:
    """Name, what it is, how it is, and in which colour."""
    well, of = play.devices_well
    waiting = play.waiting
    if play.world.cut and waiting:
        daemon = f"{waiting} waiting", "yellow"
    else:
        daemon = f"{well} of {of} well", "green" if well == of else "yellow"
    readings = play.view.readings
    return [
        ("SENSORS", "and a valve", *(("UNPLUGGED", "red") if play.unplugged else ("plugged in", "green"))),
        ("BOARD", "simulated", *(("valve OPEN", "cyan") if play.valve_open else ("valve closed", ""))),
        ("DAEMON", "device-agent", *daemon),
        ("NETWORK", "local", *(("LINK CUT", "red") if play.world.cut else ("link up", "green"))),
        (
            "CALLER",
            "official SDK",
            f"{readings} readings" if readings < 1000 else f"{readings} read",
            "green",
        ),
    ]


def _arrow(play: Play, number: int, now_s: float) -> Span:
    """The link before station `number`: a dot runs where data flow, backwards while a command is out."""
    if number == 3 and play.world.cut:
        return "──✕──", "red"
    if number == 4 and play.world.cut:
        return "     ", ""
    if play.view.sent and not play.world.cut:
        place = (ARROW - 1) - (int(now_s * 12) + number) % ARROW
        return "".join("●" if i == place else "◀" if i == 0 else "─" for i in range(ARROW)), "cyan"
    place = (int(now_s * 8) - number) % (ARROW + 3)
    style = "yellow" if number == 1 and play.unplugged else "green"
    return "".join("●" if i == place else "▶" if i == ARROW - 1 else "─" for i in range(ARROW)), style


def explanation(play: Play, now_s: float) -> str:
    """A sentence on what is happening; the most important thing first."""
    view, world = play.view, play.world
    if world.cut:
        if view.trace(VALVE, "on").value and play.valve_open:
            left_s = max(0, round(LINK_GRACE_S - (now_s - play.cut_at_s)))
            return (
                f"The link is cut. The daemon goes on measuring and keeps {play.waiting} events. Nobody can "
                f"tell it to close the valve now: in {left_s} s it does that by itself."
            )
        return (
            f"The link is cut. The daemon goes on measuring: {play.waiting} events wait in its outbox, which "
            "outlives a crash. Mend the link (n)."
        )
    if play.unplugged and play.unplugged_at_s > play.restored_at_s:
        return UNPLUGGED
    if view.late_at_s > play.restored_at_s > 0 and now_s - view.late_at_s < 10:
        return (
            f"The link is back. New readings go first, {view.late} from the time without link come late. "
            f"All are numbered: {view.missing} are missing."
        )
    if play.restored_at_s and now_s - play.restored_at_s < 10:
        return "The link is back. The daemon notices within seconds and sends what waits."
    if play.unplugged:
        return UNPLUGGED
    if view.sent:
        return "A command is on its way from the caller to the valve."
    if view.ack_at_s and now_s - view.ack_at_s < 6:
        return (
            "The caller asked, the daemon moved the valve, read the pin back and answered, in "
            f"{view.ack_ms:.0f} ms (250 of them the SDK bundles what it sends)."
        )
    if view.trace(DOOR, "active").value:
        return f"The door stands open: an edge on pin {DOOR_LINE} goes out at once, nobody had to ask."
    if play.valve_open:
        return "The valve is open: water runs out of the tank, the air gets damp. Space closes it."
    return (
        "The daemon reads an I2C sensor, listens to a door and a serial scale, and sends it all over a "
        "session that a program has opened. Try the keys."
    )


# -- the table and the log ----------------------------------------------------------------------------------


def _table(view: View, now_s: float, columns: int) -> list[Line]:
    points = []
    for row in ROWS:
        trace = view.trace(row.device, row.point)
        away = view.states.get(row.device, "online") != "online"
        value = "offline" if away else number_text(row, trace.value)
        style = "yellow" if away else "bold cyan" if value in ("open", "OPEN") else "bold"
        unit = "" if away else row.unit
        points.append(PointLine(row.device, row.label, value, trace, unit, style, faded=away))
    return point_table("WHAT THE CALLER SEES", points, now_s, columns)


def _log(view: View, began_s: float, rows: int) -> list[Line]:
    lines: list[Line] = [[(" WHAT HAPPENED", "dim")]]
    for note in list(view.notes)[-(rows - 1) :]:
        age_s = max(0.0, note.at_s - began_s)
        lines.append([(f" {int(age_s) // 60:02d}:{age_s % 60:04.1f}  ", "dim"), (note.text, note.style)])
    return lines


def _keys(play: Play, columns: int) -> list[Line]:
    spans: list[Span] = []
    for key, what in KEYS:
        spans += [(f" [{key}]", "bold"), (f" {what if columns >= 80 else what.split(' ')[0]}", "")]
    return [spans]
