"""The device as tools for a local AI assistant (Model Context Protocol), in a process of its own.

It translates between the protocol's package `mcp` and the daemon's control socket, as `local:mcp/CLIENT`:
who may do what, limits, the Journal and what happens to an id seen twice are the daemon's.
"""

import json
import re
import secrets
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from mcp.server.mcpserver import Context, Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations

from device_agent import __version__
from device_agent.errors import AgentError, Rejected

Ask = Callable[[Mapping[str, Any]], Any]
"""One question to the daemon. Raises Rejected with the daemon's refusal, AgentError where none runs."""

DOOR = "local:mcp"
HISTORY_ROWS = 200
# Of a device in the list of all: 60 tokens.
LINE_MAX = 240
CLIENT_MAX = 40
ID = re.compile(r"mcp-[0-9a-f]{12}")

INSTRUCTIONS = """Sensors and actuators of one device. `describe` first: it names devices, points, units and
ranges, and gives an id. `set` and `do` move real things: try them with dry_run, and pass the id of the last
answer; the same id a second time moves nothing, so a call whose answer was lost may be repeated as it was.
A refusal names its rule and, where there is one, how long to wait. `stop` makes everything safe."""


def server(title: str, ask: Ask) -> MCPServer[Any]:
    """The tools of one device; each is a question to the daemon."""
    made: MCPServer[Any] = MCPServer(
        title, instructions=INSTRUCTIONS, version=__version__, log_level="WARNING"
    )
    tools = _Tools(ask)
    looking, moving = ToolAnnotations(read_only_hint=True), ToolAnnotations(idempotent_hint=True)
    for tool in (tools.describe, tools.read, tools.history, tools.set, tools.do, tools.stop):
        hints = moving if tool in (tools.set, tools.do, tools.stop) else looking
        made.add_tool(tool, structured_output=False, annotations=hints)
    made.resource("device-agent://devices", mime_type="text/plain", description="All devices, a line each.")(
        tools.devices
    )
    made.resource(
        "device-agent://devices/{device}", mime_type="application/json", description="All about one device."
    )(tools.about)
    return made


class _Tools:
    """Their docstrings are what a model reads."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def describe(self, ctx: Context[Any], device: str = "") -> str:
        """All devices, a line each: state, points with unit (range, safe value where it can be set), actions.
        With `device` everything about that one. The last line has an id for `set` or `do`."""
        said = self.about(device, ctx) if device else self.lines(ctx)
        return f"{said}\nnext id: {_new_id()}"

    def read(self, ctx: Context[Any], device: str) -> str:
        """A fresh reading of one device. A value with a flag may be wrong."""
        return _json(self._daemon(ctx, op="read", device=device))

    def set(
        self, ctx: Context[Any], device: str, values: dict[str, Any], id: str = "", dry_run: bool = False
    ) -> list[Any]:
        """Set points of a device. `verified` in the answer: it was read back. dry_run: nothing moves."""
        return self._drive(ctx, id, op="set", device=device, values=values, dry_run=dry_run)

    def do(
        self,
        ctx: Context[Any],
        device: str,
        action: str,
        args: dict[str, Any] | None = None,
        id: str = "",
        dry_run: bool = False,
    ) -> list[Any]:
        """Carry out an action of a device, such as pulse. dry_run: nothing moves."""
        question = {"op": "do", "device": device, "action": action, "args": args or {}, "dry_run": dry_run}
        return self._drive(ctx, id, **question)

    def history(
        self, ctx: Context[Any], device: str, hours: float = 24, until: str = "", picture: bool = False
    ) -> Any:
        """Recorded values of the hours before `until` (ISO 8601; else now): means as CSV, or a picture."""
        try:
            end = datetime.fromisoformat(until).astimezone() if until else datetime.now().astimezone()
            span = {
                "from": round((end.timestamp() - hours * 3600) * 1000),
                "to": round(end.timestamp() * 1000),
            }
        except (ValueError, OverflowError) as error:
            raise ToolError(f"invalid_value: until: {error}") from None
        every_s = max(1.0, hours * 3600 / HISTORY_ROWS)
        form = {"format": "png"} if picture else {"format": "csv", "every_s": every_s}
        data = self._daemon(ctx, op="history", devices=[device], **span, **form)["data"]
        return Image(data=data, format="png") if picture else data.decode()

    def stop(self, ctx: Context[Any]) -> str:
        """Emergency stop: everything goes to its safe state; only a person at the device can release it."""
        return _answer(self._daemon(ctx, op="stop", id=_new_id()))

    def devices(self) -> str:
        """All devices, a line each, for a client that is not told apart."""
        return self.lines(None)

    def lines(self, ctx: Context[Any] | None) -> str:
        return "\n".join(map(_line, self._daemon(ctx, op="describe")))

    def about(self, device: str, ctx: Context[Any]) -> str:
        """Everything about one device. Raises ToolError where there is none of this name."""
        devices = {one["device"]: one for one in self._daemon(ctx, op="describe")}
        if device not in devices:
            raise ToolError(f"unknown_device: there is no device {device!r}; there are: {', '.join(devices)}")
        return _json(devices[device])

    def _drive(self, ctx: Context[Any], id_: str, **question: Any) -> list[Any]:
        """A `set` or `do`; without an id of ours nothing moves, as nobody could tell a repetition."""
        if question["dry_run"]:
            return [_answer(self._daemon(ctx, id=_new_id(), **question))]
        if ID.fullmatch(id_) is None:
            raise ToolError(f"invalid_value: nothing moved: call again with id = {_new_id()}")
        ack = self._daemon(ctx, id=id_, **question)
        file = ack.pop("file", None)
        parts: list[Any] = [_answer(ack)]
        if file is not None and file["mime_type"].startswith("image/"):
            parts.append(Image(data=file["data"], format=file["mime_type"].removeprefix("image/")))
        elif file is not None:
            parts.append(f"it gave {file['name']} ({file['mime_type']}, {len(file['data'])} bytes)")
        return parts

    def _daemon(self, ctx: Context[Any] | None, **question: Any) -> Any:
        """The daemon's answer, asked as this client. Raises ToolError with code and sentence of a refusal."""
        try:
            return self._ask({**question, "as": _door_of(ctx)})
        except Rejected as refused:
            raise ToolError(f"{refused.code}: {refused.message}") from None
        except AgentError as error:
            raise ToolError(str(error)) from None


def _door_of(ctx: Context[Any] | None) -> str:
    """With the name that the client announced, which proves nothing: a rule for one client is for friends."""
    params = None if ctx is None else ctx.session.client_params
    name = "" if params is None else re.sub(r"[^A-Za-z0-9._-]+", "-", params.client_info.name)[:CLIENT_MAX]
    return f"{DOOR}/{name}" if name else DOOR


def _new_id() -> str:
    return f"mcp-{secrets.token_hex(6)}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


def _answer(ack: Mapping[str, Any]) -> str:
    """The ack, with an id for the next command. Raises ToolError for one that was refused or failed."""
    error = ack.get("error")
    if error is not None:
        what = "nothing moved: " if ack["state"] == "rejected" else ""
        raise ToolError(f"{error['code']}: {what}{error['message']}\n{_json(ack)}\nnext id: {_new_id()}")
    return f"{_json(ack)}\nnext id: {_new_id()}"


def _line(device: Mapping[str, Any]) -> str:
    """`valve online: on boolean set safe=false; do pulse(for_s)`."""
    points = ", ".join(map(_point, device["points"]))
    actions = [
        f"{action['name']}({', '.join(one['name'] for one in action['arguments'])})"
        for action in device.get("actions", ())
    ]
    acts = f"; do {' '.join(actions)}" if actions else ""
    line = f"{device['device']} {device['state']}: {points}{acts}"
    if len(line) <= LINE_MAX:
        return line
    more = ", … all with `device`"
    return line[: LINE_MAX - len(more)].rpartition(" ")[0].rstrip(",;") + more


def _point(point: Mapping[str, Any]) -> str:
    words = [point["name"]]
    if point["type"] != "number":
        words.append(point["type"])
    if "unit" in point:
        words.append(point["unit"])
    if point["write"]:
        low, high = point.get("minimum", ""), point.get("maximum", "")
        words.append(f"set {low}..{high}" if (low, high) != ("", "") else "set")
        words.append(f"safe={_json(point.get('safe'))}")
    return " ".join(words)
