"""Imports run one way: from the rooms that know nothing to those that stand on them."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "hirelab"
# A room may import from the rooms of the rows above it, and within itself.
ROWS = [
    {"_shared"},
    {"rearrange", "results", "paper", "datasets"},
    {"hooks", "viz"},
    {"models"},
    {"analysis", "training"},
    {"synthetic"},
    {"ablation", "dense"},
    {"widgets"},
    {"lab", "hirelab"},
    {"cli"},
    {"__main__"},
]


def modules() -> dict[str, Path]:
    """Every module by its dotted name inside the package; packages by the room's name."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        found[".".join(parts) or "hirelab"] = path
    return found


def imports(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of hirelab that a module imports, anywhere in it."""
    inside = [] if name == "hirelab" else name.split(".")
    package = inside if path.name == "__init__.py" else inside[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {a.name[8:] for a in node.names if a.name.startswith("hirelab.")}
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            target = [*start, *(node.module or "").split(".")] if node.module else start
            if not node.level:
                if target[0] != "hirelab":
                    continue
                target = target[1:]
            for alias in node.names:
                whole = ".".join([*target, alias.name])
                found.add(whole if whole in known else ".".join(target) or "hirelab")
    return found - {name}


def room(module: str) -> str:
    return module.split(".")[0]


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    known = modules()
    found = {name: imports(name, path, known) for name, path in known.items()}
    assert len(found) > 40
    assert not {target for targets in found.values() for target in targets} - known.keys()
    return found


def test_every_room_has_its_row(graph):
    assert {room(name) for name in graph} <= set().union(*ROWS)


def test_no_import_goes_up_or_sideways(graph):
    row = {name: i for i, names in enumerate(ROWS) for name in names}
    wrong = [
        f"{name} imports {target}"
        for name, targets in graph.items()
        for target in targets
        if room(name) != room(target) and not row[room(target)] < row[room(name)]
    ]
    assert not wrong


def test_there_is_no_circle_between_files(graph):
    list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle
