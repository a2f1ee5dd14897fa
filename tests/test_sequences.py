"""The networks of sequences, LSTM and ViT: their sizes, and their scripts from the Original to what is left."""

import json

import keras
import numpy as np
import pytest

import keras_sbp as sbp
from keras_sbp.nets import NETWORKS, lstm, vit
from keras_sbp.utils import pruning
from keras_sbp.utils.experiment import precision
from keras_sbp.utils.pruning import counting
from keras_sbp.utils.training import state
from keras_sbp.utils.training.step import weights
from tests.support import scripts
from tests.support.slow import cases


def test_the_lstm_has_the_size_that_a_count_by_hand_gives():
    model = lstm.lstm()
    assert counting.multiply_adds(model) == 28 * (28 + 128) * 4 * 128 + 128 * 10 == 2_237_696
    assert lstm.units(counting.kernels(model)) == [128]
    assert lstm.units({}) == [0]


def test_the_vit_has_the_size_that_a_count_by_hand_gives():
    stem = 16**2 * 27 * 32 + 8**2 * 9 * 32 * 64
    attention = 64 * (4 * 64 * 64) + 2 * 64 * 64 * 64  # four projections; scores and means
    mlp = 64 * 2 * 64 * 256
    model = vit.vit()
    assert counting.multiply_adds(model) == stem + 3 * (attention + mlp) + 64 * 10 == 12_411_520
    assert vit.units(counting.kernels(model)) == [32, 64, *3 * [4, 16, 16, 256]]
    assert vit.units({}) == 14 * [0]


def test_units_are_those_that_were_left():
    noisy = sbp.insert(vit.vit(width=0.5))
    left = {"conv": 3, "patches": 20, "block1_attention_heads": 1, "block3_mlp1": 7}
    for name, count in left.items():
        noise = noisy.get_layer(f"{name}_noise")
        noise.log_sigma.assign(np.where(np.arange(noise.mu.shape[0]) < count, -5.0, 5.0))
    assert vit.units(counting.kernels(sbp.shrink(noisy))) == [3, 20, 1, 16, 16, 128, 2, 16, 16, 128, 2, 16, 16, 7]


@pytest.mark.slow
@pytest.mark.parametrize("name, before", [("LSTM", []), ("ViT", [("made_images",)])])
def test_scripts_prune_and_the_smaller_network_gives_the_outputs_of_the_masked_one(name, before, tmp_path):
    network = NETWORKS[name]
    whole = network.build(width=0.25)
    whole.save(tmp_path / "original.keras")
    # Half of the units have a threshold above theirs, whatever the images are.
    arguments = (f"--checkpoint={tmp_path / 'original.keras'}", "--log_sigma=0.5", "--threshold=1.41", "--width=0.25")
    arguments += (f"--dataset={'cifar10' if before else 'digits'}", "--epochs=2", "--shrink_every=1", "--batch_size=50")
    done = scripts.run(f"{network.script}-sbp", f"--checkpoints_dir={tmp_path / 'run'}", *arguments, before=before)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    smaller = keras.models.load_model(tmp_path / "run" / "network.keras")
    assert result["max_logit_difference"] < 1e-4
    assert result["units"] == network.units(counting.kernels(smaller)) != network.units(counting.kernels(whole))
    assert result["multiply_adds"] == counting.multiply_adds(smaller) < counting.multiply_adds(whole)


@pytest.mark.parametrize("name", cases(["LSTM", "ViT"], slow={"ViT"}))
def test_a_checkpoint_holds_a_network_that_lost_units_under_the_same_names(name):
    noisy = sbp.insert(NETWORKS[name].build(width=0.25))
    dead = {layer.name: np.arange(layer.mu.shape[0]) % 2 == 1 for layer in noisy.layers if hasattr(layer, "mu")}
    smaller, _ = pruning.remove_units(noisy, dead)
    assert counting.multiply_adds(smaller) < counting.multiply_adds(noisy)
    again = state._build_checked({"config": np.array(smaller.to_json())}, noisy)
    assert [weight.path for weight in weights(again)] == [weight.path for weight in weights(smaller)]


def test_attention_in_mixed_precision_computes_in_float32_where_that_is_asked_for():
    with precision.dtype_policy("bfloat16"):
        mixed = sbp.insert(vit.vit(width=0.5))
    exact = sbp.insert(vit.vit(width=0.5))
    exact.set_weights(mixed.get_weights())
    images = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype(np.float32)
    with precision.in_float32(mixed):
        np.testing.assert_allclose(mixed(images), exact(images), rtol=1e-5, atol=1e-6)
    assert np.abs(mixed(images) - exact(images)).max() > 1e-4, "and not otherwise"
