"""The rooms of docs/architecture.md: who imports whom, and how large they are."""

import ast
import functools
import graphlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("layers", "nets", "scripts", "utils")
FILES = sorted(path for folder in OURS for path in (ROOT / folder).rglob("*.py"))


def name(path):
    """The module of a file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name(path): path for path in FILES}


@functools.cache
def imports(module):
    """The modules of ours that a module imports."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module.removeprefix("keras_sbp.")
            inner = {f"{module}.{alias.name}" for alias in node.names}
            found |= inner & MODULES.keys() or {module}
    return {other for other in found if other.split(".")[0] in OURS}


def rooms():
    """{room: the rooms that it may import}, of the table."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| `([\w.]+)` \|.*\|([^|]*)\|$", page, re.MULTILINE)
    return {room: set(re.findall(r"`([\w.]+)`", allowed)) for room, allowed in rows}


def room_of(module):
    return next((room for room in rooms() if f"{module}.".startswith(f"{room}.")), None)


def test_every_module_has_a_room():
    assert [module for module in MODULES if module != "utils" and not room_of(module)] == []


@pytest.mark.parametrize("module", MODULES)
def test_a_room_imports_those_that_the_table_allows(module):
    allowed = rooms().get(room_of(module), set()) | {room_of(module)}
    assert {other for other in imports(module) if room_of(other) not in allowed} == set()


def test_imports_run_one_way():
    graphlib.TopologicalSorter(rooms()).prepare()
    graphlib.TopologicalSorter({module: imports(module) - {module} for module in MODULES}).prepare()


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_room_is_small_enough_to_read(path):
    text = path.read_text()
    assert text.count("\n") <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, node.name
            given = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            assert node.name != "__init__" or len(given) - 1 <= 10, path
