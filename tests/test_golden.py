"""Checkpoints that earlier commits wrote load and give the outputs that they gave then."""

import importlib
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.golden import make

FOLDER = Path(make.__file__).parent
MADE = sorted(path.stem for path in FOLDER.glob("*.npz"))

# Importing a layer's file registers the layer with Keras.
for path in (FOLDER.parents[1] / "layers").glob("[a-z]*.py"):
    importlib.import_module(f"keras_sbp.layers.{path.stem}")


def check(model, name):
    expected = np.load(FOLDER / f"{name}.npz")
    outputs = model(expected["inputs"], training=False)
    # Other machines sum in another order.
    np.testing.assert_allclose(outputs, expected["outputs"], rtol=1e-4, atol=1e-5 * np.abs(expected["outputs"]).max())


@pytest.mark.parametrize("name", [name for name in MADE if not name.startswith("training-")])
def test_an_old_network_gives_the_same_outputs(name):
    check(keras.models.load_model(FOLDER / f"{name}.keras"), name)


@pytest.mark.parametrize("name", [name for name in MADE if name.startswith("training-")])
def test_an_old_training_checkpoint_resumes(name, tmp_path):
    run = name.removeprefix("training-")
    for file in (FOLDER / run).glob("checkpoint-*.npz"):
        shutil.copy(file, tmp_path)
    steps = max(int(path.stem[-8:]) for path in tmp_path.iterdir())
    as_saved = make.train(run, make.MODELS[run](), tmp_path, epochs=2)
    check(as_saved, name)
    assert len(list(tmp_path.glob("checkpoint-*.npz"))) == 1, "a finished run was trained further"
    make.train(run, make.MODELS[run](), tmp_path, epochs=3)
    assert max(int(path.stem[-8:]) for path in tmp_path.iterdir() if path.suffix == ".npz") == steps * 3 // 2


def test_every_golden_model_has_a_file():
    assert {name.removeprefix("training-") for name in MADE} == set(make.MODELS)
    assert {f"training-{name}" for name in make.TRAINING} <= set(MADE)
