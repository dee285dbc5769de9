"""Imports go down only (design section 8), and no modules import each other in a circle."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]

BOTTOM = {"errors", "records", "clock", "jsonrules"}
LOW = {"bus", "driver", "store", "network", "events", "lives", "words"}
# Everything that is not named here lies in the middle: device, config, registry, card, sessions, safety …
TESTING = {"testing"}
HIGH = {"agent", "supervisor", "hardware", "reload", "operate"}
TOP = {"cli", "__main__"}

# What a driver may know of the runtime, as any third party; its simulated chips also know the fakes.
FOR_DRIVERS = {"device_agent.driver", "device_agent.bus", "device_agent.records", "device_agent.errors"}


def rank(module: str) -> int:
    parts = module.split(".")
    if len(parts) == 1:
        return 0  # the package itself: its version
    for number, layer in enumerate((BOTTOM, LOW, None, TESTING, HIGH, TOP)):
        if layer is not None and parts[1] in layer:
            return number
    return 2


def modules(package: str) -> dict[str, Path]:
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


RUNTIME = modules("device_agent")
DRIVERS = modules("drivers")
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


def everywhere(path: Path) -> set[str]:
    return {name for node in ast.walk(ast.parse(path.read_text())) for name in imported(node)}


def at_load(path: Path) -> set[str]:
    """Imports that run when the module is loaded: not in functions, not for type checkers alone."""
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    found: set[str] = set()
    while waiting:
        node = waiting.pop()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                continue
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            found.update(imported(child))
            waiting.append(child)
    return found


def test_imports_go_down_only():
    upward = [
        f"{module} imports {other}"
        for module, path in RUNTIME.items()
        for other in sorted(everywhere(path))
        if other in RUNTIME and rank(other) > rank(module)
    ]
    assert not upward, "import what lies below, or pass it in:\n" + "\n".join(upward)


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
        if other.partition(".")[0] == "drivers"
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
        if other.startswith(("drivers.simulated", "device_agent.testing"))
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
