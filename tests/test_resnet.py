"""ResNet-20 and ResNet-56: their size, and their scripts from the Original to what is trained on after pruning."""

import json

import keras
import numpy as np
import pytest

from keras_sbp.layers import truncated_log_normal
from keras_sbp.layers.sbp import SBP
from keras_sbp.nets import NETWORKS, resnet20
from keras_sbp.utils import pruning
from keras_sbp.utils.io import checkpoint
from keras_sbp.utils.pruning import counting
from tests.support import scripts

ARGUMENTS = ("--width=0.25", "--epochs=2", "--batch_size=20", "--precision=bfloat16")


@pytest.mark.parametrize(
    ("name", "blocks", "macs"),
    [("ResNet-20", 3, 40_813_184), pytest.param("ResNet-56", 9, 125_747_840, marks=pytest.mark.slow)],
)
def test_it_has_the_size_that_a_count_by_hand_gives(name, blocks, macs):
    # Each stage: its first block's first convolution and shortcut read the stage before, the others read its own.
    own = 2 * blocks - 1
    first = 32**2 * (27 * 16 + (own + 1) * 9 * 16 * 16)
    second, third = (side**2 * (9 * n // 2 * n + n // 2 * n + own * 9 * n * n) for side, n in ((16, 32), (8, 64)))
    network = NETWORKS[name]
    model = network.build()
    assert counting.multiply_adds(model) == first + second + third + 64 * 10 == macs
    of_each = 1 + blocks
    assert network.units(counting.kernels(model)) == [16] * of_each + [32] * of_each + [64] * of_each
    narrow = network.units(counting.kernels(network.build(width=0.02)))
    assert narrow[: 2 * of_each] == [1] * 2 * of_each, "a filter at least"
    pruned = [1 + 7 * unit % 13 for unit in range(3 * of_each)]
    assert network.units(counting.kernels(network.build(counts=pruned))) == pruned


def run(script, folder, *arguments):
    return scripts.run(script, f"--checkpoints_dir={folder}", *ARGUMENTS, *arguments, before=[("made_images",)])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ResNet-20", "ResNet-56"])
def test_scripts_from_the_original_to_a_trained_smaller_network(tmp_path, name):
    network = NETWORKS[name]
    done = run(network.script, tmp_path / "original")
    assert done.returncode == 0, done.stderr
    # Which units go differs between machines: the threshold is one that every layer has a unit above.
    arguments = (
        f"--checkpoint={tmp_path / 'original'}",
        "--log_sigma=0",
        "--kl_scale=0",
        "--initial_kl_scale=",
        "--shrink_every=0",
    )
    done = run(f"{network.script}-sbp", tmp_path / "whole", *arguments, "--finetune_epochs=0", "--threshold=0")
    assert done.returncode == 0, done.stderr
    trained = checkpoint.latest(tmp_path / "whole")
    noise = [name.removesuffix("/mu") for name in trained if name.startswith("model/") and name.endswith("/mu")]
    snr = [truncated_log_normal.snr(trained[f"{name}/mu"], trained[f"{name}/log_sigma"]) for name in noise]
    threshold = 0.999 * min(float(np.max(units)) for units in snr)
    done = run(f"{network.script}-sbp", tmp_path / "sbp", *arguments, "--finetune_epochs=1", f"--threshold={threshold}")
    assert done.returncode == 0, done.stderr
    header, row = done.stdout.splitlines()
    assert header.startswith(f"{name}, k = 0.25 on CIFAR-10") and "->" in row
    result = json.loads((tmp_path / "sbp" / "result.json").read_text())
    assert result["max_logit_difference"] < 1e-3 and 0 < min(result["units"])
    smaller = keras.models.load_model(tmp_path / "sbp" / "network.keras")
    assert (
        counting.multiply_adds(smaller) == result["multiply_adds"] < counting.multiply_adds(network.build(width=0.25))
    )
    # What was fine-tuned, with batch normalization, is what was written, with it folded into the convolutions again.
    trained = checkpoint.latest(tmp_path / "sbp" / "finetune")
    assert any(name.endswith("_norm/gamma") for name in trained)
    np.testing.assert_array_equal(smaller.get_layer("logits").kernel, trained["model/logits/kernel"])
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in smaller.layers)
    assert {layer.compute_dtype for layer in smaller.layers} == {"float32"}

    if name == "ResNet-56":  # which has no StructuredBPc
        return
    # StructuredBPc goes on with the units that StructuredBP left.
    arguments = (f"--checkpoint={tmp_path / 'sbp'}", "--epochs=1", "--finetune_epochs=0", "--threshold=0")
    done = run("resnet20-sbpc", tmp_path / "sbpc", *arguments)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "sbpc" / "result.json").read_text())["units"] == result["units"]


@pytest.mark.parametrize("dead", [(), (1,), (0, 3)])
def test_a_residual_stream_keeps_the_units_that_its_noise_keeps(dead):
    model = resnet20.resnet20(unit=SBP, norm=keras.layers.Identity, width=0.25)
    stream = model.get_layer("stage1_unit")
    stream.mu.assign(np.where(np.isin(np.arange(4), dead), -20.0, 0.0))
    stream.log_sigma.assign(np.where(np.isin(np.arange(4), dead), 5.0, -5.0))
    units = resnet20.units(counting.kernels(pruning.shrink(model)))
    assert units == [4 - len(dead), 4, 4, 4, *[8] * 4, *[16] * 4]
