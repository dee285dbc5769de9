"""A driver's page of documentation, made from its model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from device_agent import registry
from device_agent.cli.drivers import description, option_row, point_row

NOTE = "<!-- Made from the driver's model by `make driver-docs`: change the driver, not this page. -->"


def write_all(folder: Path) -> None:
    """A page of each installed driver, and README.md with a line for each."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """The text of each file by its name. Raises ConfigError for a driver that cannot be loaded."""
    told = [description(name) for name in registry.names()]
    rows = [(f"[{one['name']}]({one['name']}.md)", one["bus"], one["description"]) for one in told]
    index = "\n".join([_row(("driver", "bus", "what it is")), _row(["---"] * 3), *map(_row, rows)])
    return {
        "README.md": f"{NOTE}\n\n# Drivers\n\n{index}\n",
        **{f"{one['name']}.md": page(one) for one in told},
    }


def page(told: Mapping[str, Any]) -> str:
    """Markdown from `description` of `cli.drivers`."""
    bus = "It needs no bus." if told["bus"] == "none" else f"It sits on a bus of kind `{told['bus']}`."
    parts = [NOTE, f"# {told['name']}", told["description"], bus, f"```toml\n{told['example']}\n```"]
    parts += [
        "## Options",
        _table(("option", "type", "default", "what it does"), map(option_row, told["options"])),
    ]
    for key, options in told["tables"].items():
        parts += [f"Each of `{key}` has:"]
        parts += [_table(("option", "type", "default", "what it does"), map(option_row, options))]
    parts.append("## Points")
    if told["points"]:
        rows = map(point_row, told["points"])
        parts.append(_table(("point", "type", "unit", "range", "what it is"), rows))
    if told["points_as_configured"]:
        parts.append("Which points a device has depends on its options.")
    if told["actions"]:
        parts.append("## Actions")
    for action in told["actions"]:
        parts.append(f"`{action['name']}`: {action['description']}")
        if action["arguments"]:
            rows = map(point_row, action["arguments"])
            parts.append(_table(("argument", "type", "unit", "range", "what it is"), rows))
    if told["simulator"]:
        parts.append("With `--simulate` a simulated chip takes its place.")
    return "\n\n".join(parts) + "\n"


def _table(heads: Sequence[str], rows: Any) -> str:
    """A table; bars inside a cell are escaped, names stand as code."""
    lines = [_row(heads), _row(["---"] * len(heads))]
    for first, *rest in rows:
        lines.append(_row([f"`{first}`", *(cell.replace("|", "\\|") for cell in rest)]))
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
