"""Imports go down only, room by room, and no modules import each other in a circle."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]

# The rooms of `device_agent`, from the ground up: each imports only what stands before it, also in functions.
# Annotations alone (`if TYPE_CHECKING`) may look up. A module of the root, or a package, is a room; packages
# whose parts stand on different floors are listed part by part.
ROOMS = (
    "text",
    "errors",
    "records",
    "clock",
    "background",
    "store.files",
    "schema",
    "bus",
    "driver",
    "registry",
    "network",
    "messages",
    "config",
    "card",
    "network.blocks",
    "network.sessions_api",
    "store",
    "store.outbox",
    "store.journal",
    "store.history",
    "devices",
    "guard",
    "safety",
    "commands",
    "history",
    "tasks",
    "triggers",
    "delegation",
    "automation",
    "account",
    "testing",
    "operate",
    "page",
    "mqtt",
    "discovery",
    "doctor",
    "agent",
    "cli",
    "__main__",
)

# What a driver may know of the runtime, as any third party; its simulated chips also know the fakes.
FOR_DRIVERS = {f"device_agent.{room}" for room in ("driver", "schema", "bus", "records", "errors")}


def room(module: str) -> str:
    """The room that a module stands in; "" for the package itself, which holds its version."""
    inside = module.partition(".")[2]
    while inside and inside not in ROOMS:
        inside = inside.rpartition(".")[0]
    return inside


def modules(package: str, parent: Path = ROOT) -> dict[str, Path]:
    found = {}
    for path in sorted((parent / package).rglob("*.py")):
        parts = path.relative_to(parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


RUNTIME = modules("device_agent")
DRIVERS = modules("device_agent_drivers", ROOT / "drivers")
ALL = {**RUNTIME, **DRIVERS}


def imported(node: ast.AST) -> Iterator[str]:
    """The modules of ours that one statement imports."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        names = [f"{node.module}.{alias.name}" for alias in node.names]
    else:
        return
    for name in names:
        while name and name not in ALL:
            name = name.rpartition(".")[0]
        if name:
            yield name


def imports_of(path: Path, *, deferred: bool) -> set[str]:
    """What a module imports, not for type checkers alone; `deferred`: in functions too."""
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    found: set[str] = set()
    while waiting:
        for child in ast.iter_child_nodes(waiting.pop()):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not deferred:
                continue
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            found.update(imported(child))
            waiting.append(child)
    return found


def everywhere(path: Path) -> set[str]:
    return imports_of(path, deferred=True)


def at_load(path: Path) -> set[str]:
    return imports_of(path, deferred=False)


def test_every_module_has_a_room():
    homeless = [module for module in RUNTIME if module != "device_agent" and not room(module)]
    assert not homeless, f"name its room in ROOMS, at its place: {homeless}"


def test_the_root_is_small():
    root = [path.name for path in (ROOT / "device_agent").glob("*.py")]
    assert len(root) <= 9, f"a module belongs in the room of its thing, not in the root: {sorted(root)}"


def test_imports_between_rooms_go_down():
    upward = [
        f"{module} imports {other}"
        for module, path in RUNTIME.items()
        for other in sorted(everywhere(path))
        if room(other)
        and room(module) != room(other)
        and ROOMS.index(room(other)) > ROOMS.index(room(module))
    ]
    assert not upward, "import what stands before it in ROOMS, or pass it in:\n" + "\n".join(upward)


def test_a_door_knows_the_runtime_by_its_questions_alone():
    """What may be done, and by whom, is decided behind them: a door has no rule of its own."""
    # The network's port and the bus code are no way to a device: events come by one, brokers by the other.
    doors = {"page": set[str](), "mqtt": {"network", "bus"}}
    allowed = {"errors", "background", "store.files", "config", "operate"}
    wrong = [
        f"{module} imports {other}"
        for module, path in RUNTIME.items()
        if room(module) in doors
        for other in sorted(everywhere(path))
        if room(other) not in {room(module), "", *allowed, *doors[room(module)]}
    ]
    assert not wrong, "\n".join(wrong)


def test_only_the_command_line_imports_the_fakes():
    wrong = [
        f"{module} imports {other}"
        for module, path in RUNTIME.items()
        for other in sorted(everywhere(path))
        if other.startswith("device_agent.testing")
        and not module.startswith(("device_agent.cli", "device_agent.testing"))
    ]
    assert not wrong, "\n".join(wrong)


def test_the_runtime_names_no_driver():
    wrong = [
        f"{module} imports {other}"
        for module, path in RUNTIME.items()
        for other in everywhere(path)
        if other.partition(".")[0] == "device_agent_drivers"
    ]
    assert not wrong, "drivers come through entry points:\n" + "\n".join(wrong)


def test_drivers_know_what_a_third_party_may_know():
    wrong = []
    for module, path in DRIVERS.items():
        allowed = set(FOR_DRIVERS)
        if ".simulated" in module:
            allowed.add("device_agent.testing")
        for other in sorted(everywhere(path)):
            fits = any(other == one or other.startswith(f"{one}.") for one in allowed)
            if other in RUNTIME and not fits:
                wrong.append(f"{module} imports {other}")
    assert not wrong, "\n".join(wrong)


def test_simulators_load_when_asked_for():
    wrong = [
        f"{module} imports {other} when it is loaded"
        for module, path in DRIVERS.items()
        if ".simulated" not in module
        for other in at_load(path)
        if other.startswith(("device_agent_drivers.simulated", "device_agent.testing"))
    ]
    assert not wrong, "import it in the function that makes the simulator:\n" + "\n".join(wrong)


def test_no_module_imports_itself_round_a_corner():
    graph = {module: at_load(path) - {module} for module, path in ALL.items()}
    done: set[str] = set()

    def walk(module: str, trail: tuple[str, ...]) -> None:
        if module in trail:
            circle = " -> ".join((*trail[trail.index(module) :], module))
            raise AssertionError(f"modules import each other in a circle: {circle}")
        if module not in done:
            for other in sorted(graph[module]):
                walk(other, (*trail, module))
            done.add(module)

    for module in sorted(graph):
        walk(module, ())
