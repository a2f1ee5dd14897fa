"""The package: built, and imported beside a user's modules of the same names, without what it does not need."""

import importlib
import itertools
import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from packaging.requirements import Requirement

import keras_sbp as sbp

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
NOT_NEEDED = ("ai_edge_litert", "matplotlib", "scipy", "sklearn", "tqdm")

# The program of a user with modules of the same names, where what the scripts need is not installed.
PROGRAM = """
import json, sys

sys.modules |= dict.fromkeys(NOT_NEEDED)  # to import one of them is an ImportError

import keras, numpy, layers, nets, utils
import keras_sbp as sbp
from absl import flags

outputs = keras.models.load_model("noisy.keras")(numpy.load("inputs.npy"))
for name in set(sbp.__all__) - {"Checkpoint", "prune", "tradeoff"}:  # the tool, which needs the experiments' extras
    getattr(sbp, name)
print(json.dumps({
    "outputs": numpy.asarray(outputs).tolist(),
    "theirs": [layers.NAME, nets.NAME, utils.NAME],
    "ours": [name for name in sys.modules if name.startswith("keras_sbp.")],
    "flags": [name for name in flags.FLAGS.flags_by_module_dict() if name.startswith("keras_sbp")],
}))
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A user's folder with their utils, layers and nets, and a noisy network: (folder, inputs, outputs)."""
    folder = tmp_path_factory.mktemp("user")
    for path in ("utils/__init__.py", "layers.py", "nets.py"):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text("NAME = 'of the user'\n")
    inputs = np.random.default_rng(0).normal(size=(4, 3, 5)).astype(np.float32)
    noisy = sbp.insert(keras.Sequential([keras.Input((3, 5)), keras.layers.LSTM(6), keras.layers.Dense(3)]), 0.1)
    noisy.compile(sbp.optimizer(keras.optimizers.Adam(1e-3), keras.optimizers.Adam(5e-2)), "mse")
    noisy.save(folder / "noisy.keras")
    np.save(folder / "inputs.npy", inputs)
    return folder, inputs, np.asarray(noisy(inputs))


@pytest.fixture(scope="module")
def printed(saved):
    """What the user's program prints, in a process of its own."""
    folder = saved[0]
    (folder / "program.py").write_text(f"NOT_NEEDED = {NOT_NEEDED}\n{PROGRAM}")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "program.py"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_is_imported_beside_modules_of_the_same_names(printed):
    assert printed["theirs"] == ["of the user"] * 3


def test_a_noisy_network_opens_in_another_process_with_the_package_alone(saved, printed):
    np.testing.assert_allclose(printed["outputs"], saved[2], rtol=1e-6)


def test_importing_it_leaves_experiments_and_their_flags_out(printed):
    assert printed["flags"] == []
    packages = {name if "utils" not in name else ".".join(name.split(".")[:3]) for name in printed["ours"]}
    assert {name for name in packages if not name.startswith("keras_sbp.layers")} == {
        "keras_sbp.utils",
        "keras_sbp.utils.deployment",
        "keras_sbp.utils.pruning",
        "keras_sbp.keras_private",
        "keras_sbp.lazy",
    }


def test_a_backend_that_is_not_installed_is_not_found(monkeypatch):
    finder = sbp._RegisterWithKeras()
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert finder.find_spec("tensorflow", None) is None
    assert sys.meta_path[0] is finder


@pytest.mark.parametrize("name", ["layers", "nets", "utils", "layers.sbp", "utils.pruning"])
def test_the_bare_names_are_refused_in_one_line(name):
    package = name.split(".")[0]
    with pytest.raises(ImportError) as refused:
        importlib.import_module(name)
    assert re.fullmatch(rf"{package} .*\bkeras_sbp\.{package}\b.*", str(refused.value))


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of what a distribution is built from, as it writes beside it."""
    folder = tmp_path_factory.mktemp("tree")
    for name in ("keras_sbp", "layers", "nets", "utils", "scripts", "pyproject.toml", "README.md"):
        subprocess.run(["cp", "-a", str(ROOT / name), str(folder)], check=True)
    return folder


def build(kind, tree, output):
    """The path of a wheel or an sdist of a tree."""
    pytest.importorskip("setuptools", reason="setuptools builds it")
    code = f"from setuptools import build_meta; build_meta.build_{kind}({str(output)!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = output.iterdir()
    return path


def files(wheel):
    """{name: content} of the files of a wheel, but for its metadata."""
    with zipfile.ZipFile(wheel) as file:
        return {name: file.read(name) for name in file.namelist() if ".dist-info/" not in name}


def test_a_wheel_has_the_files_of_the_package_and_no_others(tree, tmp_path):
    linked = [path for folder in ("layers", "nets", "utils") for path in (ROOT / folder).rglob("*.py")]
    ours = {f"keras_sbp/{path.relative_to(ROOT)}": path.read_bytes() for path in linked}
    names = ("__init__.py", "keras_private.py", "lazy.py", "py.typed")
    own = {f"keras_sbp/{name}": (ROOT / "keras_sbp" / name).read_bytes() for name in names}
    found = files(build("wheel", tree, tmp_path))
    assert b"class SBP" in found["keras_sbp/layers/sbp.py"]
    assert found == ours | own


@pytest.mark.slow
def test_an_sdist_gives_the_same_wheel(tree, tmp_path):
    for name in ("direct", "sdist", "unpacked", "indirect"):
        (tmp_path / name).mkdir()
    with tarfile.open(build("sdist", tree, tmp_path / "sdist")) as file:
        file.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    wheels = build("wheel", tree, tmp_path / "direct"), build("wheel", unpacked, tmp_path / "indirect")
    assert wheels[0].name == wheels[1].name == f"keras_sbp-{sbp.__version__}-py3-none-any.whl"
    assert files(wheels[0]) == files(wheels[1])


def requirements(lines):
    """{name: its versions} of requirements, without this package's own extras."""
    found = map(Requirement, lines)
    return {requirement.name: requirement.specifier for requirement in found if requirement.name != PROJECT["name"]}


@pytest.mark.parametrize(
    "path, allowed",
    [
        (
            "requirements.txt",
            [*PROJECT["dependencies"], *itertools.chain(*(EXTRAS[name] for name in EXTRAS if name != "tests"))],
        ),
        ("tests/requirements.txt", EXTRAS["tests"]),
    ],
)
def test_the_versions_for_the_scripts_are_among_those_of_the_package(path, allowed):
    lines = [line for line in (ROOT / path).read_text().splitlines() if line and not line.startswith(("#", "-r"))]
    narrow, wide = requirements(lines), requirements(allowed)
    assert narrow.keys() == wide.keys()
    for name, versions in narrow.items():
        (lowest,) = (specifier.version for specifier in versions if specifier.operator == ">=")
        assert wide[name].contains(lowest), name
