"""The public names: docs/api.md has each of them with its signature, and every public function says its types."""

import ast
import inspect
import re
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import keras_sbp

ROOT = Path(__file__).parents[1]


def documented():
    """{name: its block of Python, or None} of docs/api.md's headings, as in

    ## `insert`

    ```python
    insert(model: keras.Model, kl_weight: float = 0.0) -> keras.Model
    ```
    """
    page = (ROOT / "docs" / "api.md").read_text()
    found = {}
    for section in re.split(r"^#{2,4} ", page, flags=re.MULTILINE):
        if heading := re.match(r"`([\w.]+)`\n", section):
            block = re.search(r"^```python\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
            found[heading[1]] = block and block[1]
    return found


def public_names():
    """`keras_sbp.__all__`, and the functions of modules in it."""
    for name in keras_sbp.__all__:
        yield name
        value = getattr(keras_sbp, name)
        if inspect.ismodule(value):
            for key, function in inspect.getmembers(value, inspect.isfunction):
                if not key.startswith("_") and function.__module__ == value.__name__:
                    yield f"{name}.{key}"


def look_up(name):
    """What a documented name stands for."""
    value = keras_sbp
    for part in name.split("."):
        value = getattr(value, part)
    return value


def signature(name):
    """The signature of a documented callable, with types in the place of their names."""
    value = look_up(name)
    is_class, is_method = inspect.isclass(value), "." in name and inspect.isclass(look_up(name.rpartition(".")[0]))
    found = inspect.signature(value.__init__ if is_class else value, eval_str=True)
    returned = inspect.Signature.empty if is_class else found.return_annotation
    return found.replace(
        parameters=list(found.parameters.values())[is_class or is_method :], return_annotation=returned
    )


def written_signature(block, names):
    """(name, signature) with which a block begins; its types are looked up in `names`."""
    lines = block.splitlines()
    for end in range(1, len(lines) + 1):
        name, rest = re.fullmatch(r"([\w.]+)(.*)", "\n".join(lines[:end]), re.DOTALL).groups()
        local = {}
        try:
            exec(f"def function{rest}: ...", names, local)
        except SyntaxError:  # it goes on in the next line
            continue
        return name, inspect.signature(local["function"])
    raise AssertionError(f"no signature at the beginning of:\n{block}")


def test_every_public_name_is_documented_and_nothing_else():
    names = documented().keys()
    assert set(public_names()) - names == set()
    assert {name.split(".")[0] for name in names} == set(keras_sbp.__all__)


def test_documented_signatures_are_those_of_the_code():
    for name, block in documented().items():
        value = look_up(name)
        if callable(value):
            assert block, f"{name} has no signature in docs/api.md"
            names = {"keras": keras, "np": np, "tf": tf, **vars(inspect.getmodule(value))}
            assert written_signature(block, names) == (name, signature(name))


def functions(path):
    """The functions of a file and the methods of its classes, without private ones."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            for each in node.body if isinstance(node, ast.ClassDef) else [node]:
                if isinstance(each, ast.FunctionDef) and (each.name == "__init__" or not each.name.startswith("_")):
                    yield each


def test_arguments_of_public_functions_have_types():
    """ruff checks what they return."""
    untyped = []
    for path in (path for folder in ("layers", "nets", "utils") for path in (ROOT / folder).rglob("*.py")):
        for function in functions(path):
            given = function.args
            arguments = [*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs, given.kwarg]
            missing = {each.arg for each in arguments if each and not each.annotation} - {"self", "cls"}
            untyped += [f"{path.relative_to(ROOT)}: {function.name}({name})" for name in sorted(missing)]
    assert untyped == []
