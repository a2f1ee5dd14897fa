"""The packages of docs/architecture.md: which imports which, and how large their files are."""

import ast
import functools
import graphlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("layers", "nets", "scripts", "utils")
FILES = sorted(path for directory in OURS for path in (ROOT / directory).rglob("*.py"))
# The only modules under scripts/ that may read flags.
READS_FLAGS = {"utils.experiment.flags", "utils.io.command_line"}


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
            source = f"{node.module}.".removeprefix("keras_sbp.")
            inner = {f"{source}{alias.name}" for alias in node.names}
            source = source.removesuffix(".")
            found |= inner & MODULES.keys() or {source}
    return {other for other in found if other.split(".")[0] in OURS}


def packages():
    """{package: the packages that it imports}, of the page's table."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| `([\w.]+)` \|.*\|([^|]*)\|$", page, re.MULTILINE)
    return {package: set(re.findall(r"`([\w.]+)`", imported)) for package, imported in rows}


def package_of(module):
    return next((package for package in packages() if f"{module}.".startswith(f"{package}.")), None)


def test_every_module_is_in_a_package_of_the_table():
    assert [module for module in MODULES if module != "utils" and not package_of(module)] == []


@pytest.mark.parametrize("package", packages())
def test_a_package_imports_those_that_the_table_says(package):
    found = {package_of(other) for module in MODULES if package_of(module) == package for other in imports(module)}
    assert found - {package} == packages()[package]


def test_imports_run_one_way():
    graphlib.TopologicalSorter(packages()).prepare()
    graphlib.TopologicalSorter({module: imports(module) - {module} for module in MODULES}).prepare()


@pytest.mark.parametrize("module", sorted(module for module in MODULES if not module.startswith("scripts.")))
def test_flags_are_read_at_the_edge_only(module):
    text = MODULES[module].read_text()
    assert ("FLAGS" in text or "from absl" in text) == (module in READS_FLAGS)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_files_and_functions_are_short(path):
    text = path.read_text()
    assert text.count("\n") <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, node.name
            arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            assert node.name != "__init__" or len(arguments) - 1 <= 10, path
