"""Networks of any topology: the smaller ones without the units that noise has made dead."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_sbp.utils import pruning
from tests.stress import keras_applications
from tests.support.slow import cases

# What is left of the multiply-adds with half of the units dead, at the most.
LEFT = {"ResNet50V2": 0.30, "MobileNetV2": 0.35}


SLOW = {"detector", "ShuffleNet", "U-Net of any size", "pre-activation, of any size", "recurrent"}


@pytest.mark.parametrize("name", cases(keras_applications.OTHERS, slow=SLOW))
def test_smaller_networks_compute_the_same(name):
    inserted, found = keras_applications.check(keras_applications.OTHERS[name](), fractions=(0.0, 0.5, 1.0))
    assert inserted <= 1e-5
    assert max(difference for difference, _ in found) <= keras_applications.TOLERANCE
    left = [macs for _, macs in found]
    assert left[0] == 1 and left[0] > left[1] > left[2]


@pytest.mark.slow
@pytest.mark.parametrize("name", LEFT)
def test_removing_half_the_units_removes_most_macs(name):
    inserted, ((difference, left),) = keras_applications.check(keras_applications.application(name), fractions=(0.5,))
    assert max(inserted, difference) <= keras_applications.TOLERANCE and left <= LEFT[name]


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=8)
def test_smaller_random_graphs_compute_the_same(seed):
    rng = np.random.default_rng(seed)
    inserted, found = keras_applications.check(
        keras_applications.random_graph(rng), fractions=(rng.choice([0.1, 0.5, 0.9]), 1.0)
    )
    assert inserted <= 1e-5 and max(difference for difference, _ in found) <= keras_applications.TOLERANCE


@pytest.mark.slow
def test_smaller_networks_load_without_this_package(tmp_path):
    rng = np.random.default_rng(0)
    for number, (name, build) in enumerate(keras_applications.OTHERS.items()):
        noisy = pruning.insert(build())
        keras_applications.kill(noisy, 0.5, rng)
        smaller, inputs = pruning.shrink(noisy), keras_applications.examples(noisy, rng)
        smaller.save(tmp_path / f"{number}.keras")
        given = inputs if isinstance(inputs, list) else [inputs]
        expected = keras_applications.outputs(smaller, inputs)
        np.savez(tmp_path / f"{number}.npz", *given, *expected)
        (tmp_path / f"{number}.txt").write_text(str(len(given)))
    script = """
import importlib.util, pathlib, keras, numpy as np
assert not importlib.util.find_spec("keras_sbp")
for path in pathlib.Path().glob("*.keras"):
    arrays, count = [*np.load(path.with_suffix(".npz")).values()], int(path.with_suffix(".txt").read_text())
    outputs = keras.tree.flatten(keras.models.load_model(path)(arrays[:count] if count > 1 else arrays[0]))
    for a, b in zip(outputs, arrays[count:], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max())
    print(path)
"""
    run = subprocess.run([sys.executable, "-I", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert len(run.stdout.split()) == len(keras_applications.OTHERS), run.stderr
