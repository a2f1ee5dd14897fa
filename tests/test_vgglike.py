"""VGG-like: its size, its images, batch normalisation in training, on towers and in the smaller network."""

import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sbp.layers.batch_normalization import BatchNormalization
from keras_sbp.layers.sbp import SBP
from keras_sbp.nets import NETWORKS, vgglike
from keras_sbp.nets.lenet5 import lenet5
from keras_sbp.utils import experiment, pruning
from keras_sbp.utils.io import checkpoint, data, paper, preprocessing
from keras_sbp.utils.io.command_line import UserError
from keras_sbp.utils.pruning import counting
from tests.support import scripts
from tests.support.slow import cases
from tests.support.steps import steps, train

NARROW = 1 / 16
NO_VALIDATION = SimpleNamespace(settings=SimpleNamespace(validate=False))


def made(count, seed=0):
    """Images in the form of CIFAR-10, which a network can tell apart."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(10, size=count, dtype=np.int32)
    colors = np.random.default_rng(99).integers(200, size=(10, 1, 1, 3))
    return data.Images((colors[labels] + rng.integers(55, size=(count, 32, 32, 3))).astype(np.uint8), labels)


def settings(**changes):
    default = {"preprocess": preprocessing.CropAndFlip(), "rate": lambda variable: 1e-3, "batch_size": 20, "epochs": 4}
    return {**default, **changes}


def small(unit=SBP):
    """One convolution with batch normalisation."""
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(4, 3, strides=4, padding="same", name="conv1")(inputs)
    x = unit(name="conv1_unit")(keras.layers.ReLU(name="relu")(BatchNormalization(name="norm")(x)))
    return keras.Model(inputs, keras.layers.Dense(10, name="logits")(keras.layers.Flatten(name="flat")(x)))


def randomise(model, rng):
    """Weights, statistics and dead units at random; returns which units are dead."""
    dead = {}
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma, beta, mean, variance = rng.normal(size=(4, layer.input.shape[-1]))
            layer.set_weights([gamma, beta, mean, variance**2 + 0.5])
        elif isinstance(layer, SBP):
            units = dead[layer.name] = rng.random(layer.mu.shape) < rng.choice([0, 0.4, 0.8])
            layer.mu.assign(np.where(units, -20.0, rng.uniform(-1, 0, units.shape)))
            layer.log_sigma.assign(np.where(units, 5.0, -4.0))
        elif hasattr(layer, "kernel"):
            layer.bias.assign(rng.normal(size=layer.bias.shape))
    return dead


def test_it_has_the_papers_size_and_units():
    model = vgglike.vgglike()
    assert counting.multiply_adds(model) == 313_463_808
    assert tuple(vgglike.units(counting.kernels(model))) == paper.TABLES["VGG-like"][1]["Original"].units
    wider = {name: (*shape[:-2], *(3 * n // 2 for n in shape[-2:])) for name, shape in counting.kernels(model).items()}
    assert tuple(vgglike.units(wider)) == paper.TABLES["VGG-like, k = 1.5"][1]["Original"].units


def test_the_papers_rows_have_the_papers_flops():
    """The multiply-adds of Table 2's units, counted by hand, give its speed-ups to the last digit.

    So do BC's: 2.22x and 2.57x fewer than the Original's.
    """
    sides = [32] * 2 + [16] * 2 + [8] * 3 + [4] * 3 + [2] * 3

    def multiply_adds(units):
        inputs = (3, *units)
        convolutions = sum(9 * a * b * side**2 for a, b, side in zip(inputs, units, sides))
        return convolutions + units[12] * units[13] + units[13] * 10

    for table in ("VGG-like", "VGG-like, k = 1.5"):
        _, rows = paper.TABLES[table]
        for row in rows.values():
            speedup = multiply_adds(rows["Original"].units) / multiply_adds(row.units)
            assert speedup == pytest.approx(row.flops, abs=0.006)
    for method in ("BC-GNJ", "BC-GHS"):
        other = paper.OTHERS["VGG-like"][method]
        assert 313_463_808 / multiply_adds(other.units) == pytest.approx(other.flops, abs=0.006)


def test_a_start_as_the_identity_hands_on_the_brightest_of_each_colour():
    """Through 13 convolutions and five poolings, each of which takes the largest of four positions."""
    model = vgglike.vgglike(width=NARROW)
    vgglike.start_as_identity(model)
    images = np.random.default_rng(0).random((5, 32, 32, 3), np.float32)
    features = keras.Model(model.input, model.get_layer("features").output)(images)
    divided = np.sqrt(1 + model.get_layer("conv1_norm").epsilon) ** 13
    np.testing.assert_allclose(features[:, :3], images.max((1, 2)) / divided, rtol=1e-5)


def test_standardised_images_have_mean_0_and_variance_1():
    images = made(6).images
    expected = (images - images.mean((1, 2, 3), keepdims=True)) / images.std((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(preprocessing.standardize(images), expected, atol=1e-5)
    flat = np.full((1, 32, 32, 3), 7, np.uint8)
    np.testing.assert_array_equal(preprocessing.standardize(flat), 0 * flat)


def test_shifted_images_are_windows_of_the_padded_image():
    images = made(200).images
    padded = np.pad(preprocessing.scale(images), [(0, 0), (2, 2), (2, 2), (0, 0)])
    seen = set()
    for ours, image in zip(preprocessing.Shift(2)(images, (3, 4)).numpy(), padded, strict=True):
        positions = [
            (top, left)
            for top in range(5)
            for left in range(5)
            if np.array_equal(ours, image[top : top + 32, left : left + 32])
        ]
        assert len(positions) == 1
        seen.update(positions)
    # Of 25 positions, 200 images miss one with a probability of 25 * (24 / 25)^200 = 0.007.
    assert len(seen) == 25
    np.testing.assert_array_equal(preprocessing.Shift(0)(images, (3, 4)), preprocessing.scale(images))


def test_augmented_images_are_crops_of_the_padded_image_flipped_or_not():
    images = made(400).images
    padded = np.pad(preprocessing.standardize(images), [(0, 0), (4, 4), (4, 4), (0, 0)])
    seen = set()
    for ours, image in zip(preprocessing.CropAndFlip()(images, (3, 4)).numpy(), padded, strict=True):
        positions = [
            (top, left, flip)
            for top in range(9)
            for left in range(9)
            for flip in (1, -1)
            if np.array_equal(ours, image[top : top + 32, left : left + 32][:, ::flip])
        ]
        assert len(positions) == 1
        seen.update(positions)
    # 162 positions, 400 images: 14 positions are missed on average, with a standard deviation of 3.
    assert len(seen) > 130
    np.testing.assert_array_equal(
        preprocessing.CropAndFlip()(images, (3, 4)), preprocessing.CropAndFlip()(images, (3, 4))
    )
    assert np.any(preprocessing.CropAndFlip()(images, (3, 5)) != preprocessing.CropAndFlip()(images, (3, 4)))


def test_a_square_of_its_own_is_cut_out_of_every_augmented_image():
    images = made(400).images
    whole, cut = (
        preprocessing.CropAndFlip()(images, (3, 4)).numpy(),
        preprocessing.CropAndFlip(8)(images, (3, 4)).numpy(),
    )
    corners = set()
    for before, after in zip(whole, cut, strict=True):
        rows, columns = np.nonzero((before != after).any(-1))
        top, left = rows.min(), columns.min()
        assert rows.max() - top < 8 and columns.max() - left < 8
        assert not after[rows, columns].any()
        corners.add((top, left))
    # 625 positions, 400 images: 295 of them on average.
    assert len(corners) > 250
    assert min(min(corners)) == 0 and max(max(corners)) >= 24


@pytest.mark.parametrize("seed", cases(range(2), slow={1}))
def test_the_smaller_network_of_any_mask_computes_the_same(seed):
    rng = np.random.default_rng(seed)
    model = vgglike.vgglike(SBP, width=NARROW)
    randomise(model, rng)
    smaller = pruning.shrink(model)
    images = preprocessing.standardize(made(20).images)
    logits = model(images).numpy()
    np.testing.assert_allclose(smaller(images), logits, atol=1e-5 * max(1, np.abs(logits).max()))
    assert counting.multiply_adds(smaller) < counting.multiply_adds(model)
    assert len(vgglike.units(counting.kernels(smaller))) == 14


def test_batch_normalisation_keeps_what_it_has_seen():
    """The moving statistics after a step: by hand, from the convolution of the whole batch."""
    model, images = small(), made(40)
    x = model.get_layer("conv1")(preprocessing.standardize(images.images)).numpy()
    norm, still = (
        model.get_layer("norm"),
        settings(batch_size=40, preprocess=preprocessing.standardize),
    )
    steps(images, **still)(model).run(0, 0, 1)
    np.testing.assert_allclose(norm.moving_mean, 0.01 * x.mean((0, 1, 2)), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(norm.moving_variance, 0.99 + 0.01 * x.var((0, 1, 2), ddof=1), rtol=1e-5)


@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_the_fused_kernel_is_batch_normalisation(training, trainable):
    """Values and gradients, beside Keras's own layer in float32."""
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(size=(8, 5, 5, 3)), tf.float32)
    found = []
    for kind in (BatchNormalization, keras.layers.BatchNormalization):
        layer = kind(trainable=trainable)
        layer.build(x.shape)
        layer.set_weights([np.array([0.5, 1, 2]), np.array([0.1, 0, -1]), np.array([0.3, 0, 1]), np.array([1, 2, 3])])
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=training)
            loss = tf.reduce_sum(tf.sin(y))
        found.append([y, *tape.gradient(loss, [x, *(variable.value for variable in layer.trainable_variables)])])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_frozen_normalisation_stays_frozen_in_a_network_that_shrinks_and_in_one_from_a_checkpoint(tmp_path):
    model, rng = small(), np.random.default_rng(0)
    randomise(model, rng)
    dead = np.array([True, False, True, False])
    model.get_layer("conv1_unit").mu.assign(np.where(dead, -20.0, -0.1))
    model.get_layer("conv1_unit").log_sigma.assign(np.where(dead, 5.0, -4.0))
    model.get_layer("norm").trainable = False
    before = model.get_layer("norm").get_weights()
    trained = train(model, steps(made(40), **settings()), tmp_path, shrink_every=1)
    assert trained.get_layer("conv1").filters == 2
    again = train(small(), steps(made(40), **settings(epochs=5)), tmp_path, shrink_every=1)
    for smaller in (trained, again):
        norm = smaller.get_layer("norm")
        assert not norm.trainable
        for was, now in zip(before, norm.get_weights(), strict=True):
            np.testing.assert_array_equal(now, was[~dead])
    assert np.any(again.get_layer("conv1").kernel.numpy() != trained.get_layer("conv1").kernel.numpy())


@pytest.mark.slow
def test_in_mixed_precision_statistics_noise_and_logits_are_float32():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed, small_mixed = vgglike.vgglike(SBP, width=NARROW), small()
        logits = [network.build().output.dtype for network in NETWORKS.values()]
    finally:
        keras.config.set_dtype_policy(policy)
    assert {mixed.output.dtype, *logits} == {"float32"}
    assert mixed.get_layer("conv2").compute_dtype == "bfloat16"
    assert {variable.dtype for variable in mixed.trainable_variables} == {"float32"}
    ours, theirs = small_mixed, small()
    theirs.set_weights(ours.get_weights())
    images = made(40)
    for model in (ours, theirs):
        still = settings(batch_size=40, preprocess=preprocessing.standardize)
        sums, _ = steps(images, **still)(model).run(0, 0, 1)
        assert sums.dtype == tf.float32
    seen = [model.get_layer("norm").moving_variance.numpy() - 0.99 for model in (ours, theirs)]
    np.testing.assert_allclose(*seen, rtol=0.02)


def test_a_checkpoint_brings_normalisation_and_says_what_it_brought(tmp_path, capsys):
    source = vgglike.vgglike(width=NARROW)
    randomise(source, np.random.default_rng(0))
    pruning.shrink(source).save(tmp_path / "network.keras")
    model = vgglike.vgglike(lambda name: SBP(log_sigma=-20.0, name=name), norm=keras.layers.Identity, width=NARROW)
    experiment.load_weights(NO_VALIDATION, model, str(tmp_path))
    images = preprocessing.standardize(made(5).images)
    np.testing.assert_allclose(model(images), source(images), rtol=1e-4, atol=1e-4)
    restored, _, started = capsys.readouterr().err.partition("initialized: ")
    assert "conv3," in restored and "unit" not in restored
    assert started.startswith("conv1_unit/mu, conv1_unit/log_sigma") and "kernel" not in started


@pytest.mark.parametrize("other", [lenet5, *(lambda k=k: vgglike.vgglike(width=k) for k in (NARROW, 2 * NARROW))])
def test_a_checkpoint_of_another_network_or_width_is_one_line(other, tmp_path):
    other().save(tmp_path / "network.keras")
    with pytest.raises(UserError, match="another network") as raised:
        experiment.load_weights(NO_VALIDATION, vgglike.vgglike(norm=keras.layers.Identity, width=NARROW), str(tmp_path))
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 400


def test_pruning_goes_on_from_a_network_with_all_layers_only(tmp_path):
    run_ = SimpleNamespace(title="VGG-like", network=NETWORKS["VGG-like"])
    vgglike.vgglike(width=NARROW).save(tmp_path / "network.keras")
    assert experiment.live_units(run_, str(tmp_path)) == [4, 4, 8, 8, *[16] * 3, *[32] * 7]
    lenet5().save(tmp_path / "network.keras")
    with pytest.raises(UserError, match="another network") as raised:
        experiment.live_units(run_, str(tmp_path))
    assert "\n" not in str(raised.value)


TOWERS = """
import sys
import keras, numpy as np, tensorflow as tf
from keras_sbp.nets import vgglike
from tests.support.steps import steps
from tests.test_vgglike import NARROW, made, settings, small
from keras_sbp.utils.io import preprocessing
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]) if sys.argv[1] == "2" else tf.distribute.get_strategy()
# Augmentation held; noise, too, is held in tests/test_training.py.
changes = dict(strategy=strategy, preprocess=preprocessing.standardize)
state = {}
for name in ("frozen", "statistics"):
    keras.utils.set_random_seed(0)
    with strategy.scope():
        frozen = vgglike.vgglike(norm=keras.layers.Identity, width=NARROW)
        model = frozen if name == "frozen" else small(unit=keras.layers.Identity)
    step = steps(made(40), **settings(batch_size=40 // strategy.num_replicas_in_sync, **changes))(model)
    sums, _ = step.run(0, 0, 1)
    state |= {f"{name}/sums": sums} | {f"{name}/{key}": value for key, value in step.state().items()}
np.savez(sys.argv[2], **{name.replace("/", "."): value for name, value in state.items()})
"""


@pytest.mark.slow
def test_two_towers_of_20_take_the_step_of_one_of_40(tmp_path):
    """With batch normalisation frozen; else its statistics are the mean over the towers."""
    for count in ("1", "2"):
        done = scripts.run(TOWERS, count, tmp_path / f"{count}.npz", before=[("two_cpus",)])
        assert done.returncode == 0, done.stderr
    one, two = np.load(tmp_path / "1.npz"), np.load(tmp_path / "2.npz")
    assert set(one) == set(two)
    for name in one:
        if name.startswith("frozen") or name.endswith("moving_mean"):
            ours, theirs = two[name], one[name]
            if name.endswith("velocity"):  # a square, with twice the gradient's relative error
                ours, theirs = np.sqrt(ours), np.sqrt(theirs)
            atol = 1e-5 * max(np.abs(theirs).max(), 1e-30)
            np.testing.assert_allclose(ours, theirs, atol=atol, err_msg=name)


def run(script, folder, *arguments):
    return scripts.run(script, f"--checkpoints_dir={folder}", *arguments, before=[("made_images",)])


@pytest.mark.parametrize("given", [[], ["--batch_size=100"]], ids=["its own", "given"])
def test_an_original_that_is_made_first_has_its_own_batch_size_unless_one_is_given(given, tmp_path):
    done = run("vgglike-sbp", tmp_path / "sbp", "--schedule=short", f"--width={NARROW}", *given)
    assert done.returncode == 2, "there are 60 images"
    command = next(line for line in done.stderr.splitlines() if "training it with" in line)
    assert "vgglike.py" in command and "--schedule=short" in command
    assert [flag for flag in command.split() if flag.startswith("--batch_size")] == given
    assert f"--batch_size={100 if given else 500}" in done.stderr.splitlines()[-1]


SHORT = ("--schedule=short", "--batch_size=20", f"--width={NARROW}")
PRUNING = (*SHORT, "--epochs=2", "--finetune_epochs=1")


def dense_run(folder):
    """An Original that is trained by its script."""
    # At the rates of the short schedule, which are meant for larger batches, such a network diverges.
    done = run("vgglike", folder, *SHORT, "--epochs=2", "--learning_rate=1e-2", "--kernel_learning_rate=1e-2")
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "result.json").read_text())


@pytest.mark.slow
def test_scripts_from_the_dense_network_to_a_row_of_the_short_schedule(tmp_path):
    # Where a run of vgglike-sbp.py without --checkpoint looks for the network that it starts from.
    dense = dense_run(tmp_path / "sbp-vgglike")
    assert dense["flops_speedup"] == 1 and dense["settings"]["epochs"] == 2
    assert dense["settings"]["weight_decay"] == 5e-4, "the short schedule has a decay of its own"
    done = run("vgglike-sbp", tmp_path / "sbp", *PRUNING)
    assert done.returncode == 0, done.stderr
    header, original, row = done.stdout.splitlines()
    assert header.startswith("VGG-like, k = 0.0625 on CIFAR-10")
    assert original.split()[:3] == ["Original", "ours", f"{dense['error']:.2f}"], "the one beside it"
    assert row.split()[:2] == ["StructuredBP", "ours"]
    result = json.loads((tmp_path / "sbp" / "result.json").read_text())
    assert result["max_logit_difference"] < 1e-4
    assert "error_before_finetuning" in result and result["seconds_before_finetuning"] < result["seconds"]
    assert np.any(checkpoint.latest(tmp_path / "sbp-vgglike")["model/conv1_norm/moving_mean"] != 0)
    wider = run("vgglike-sbpc", tmp_path / "wider", f"--checkpoint={tmp_path / 'sbp'}", "--width=0.125")
    assert wider.returncode == 2 and "another network" in wider.stderr.splitlines()[-1]


def further_tuning(folder):
    """A pruned network that is fine-tuned once more, with the dense network as its teacher."""
    start = (f"--checkpoint={folder / 'vgglike-sbp'}", *SHORT, "--epochs=0", "--finetune_epochs=1")
    done = run("vgglike-sbp", folder / "tuned", *start, f"--finetune_teacher={folder / 'dense'}")
    assert done.returncode == 0, done.stderr
    held_out = run("vgglike-sbp", folder / "held-out", *start, f"--finetune_teacher={folder / 'dense'}", "--validate")
    assert held_out.returncode == 2 and "holds out" in held_out.stderr
    return json.loads((folder / "tuned" / "result.json").read_text())


@pytest.mark.slow
def test_scripts_of_the_other_methods(tmp_path):
    dense_run(tmp_path / "dense")
    of_dense = f"--checkpoint={tmp_path / 'dense'}"
    runs = {
        "vgglike-sbp": (of_dense, *PRUNING),
        "vgglike-sbpa": (f"--checkpoint={tmp_path / 'vgglike-sbp'}", *SHORT, "--epochs=1", "--finetune_epochs=0"),
        "vgglike-sbpc": (f"--checkpoint={tmp_path / 'vgglike-sbp'}", *SHORT, "--epochs=1", "--finetune_epochs=0"),
        "vgglike-ssl": (of_dense, *PRUNING, "--lasso=0.9"),
        "vgglike-sparsevd": (of_dense, *PRUNING),
        "vgglike-plainsbp": (of_dense, *SHORT, "--epochs=1"),
    }
    results = {}
    for script, arguments in runs.items():
        done = run(script, tmp_path / script, *arguments)
        assert done.returncode == 0, done.stderr
        results[script] = json.loads((tmp_path / script / "result.json").read_text())
    before = results["vgglike-sbp"]
    for script in ("vgglike-sbpa", "vgglike-sbpc"):
        further = results[script]
        assert further["flops_speedup"] >= before["flops_speedup"], "not of the Original of its width"
        assert all(unit <= old for unit, old in zip(further["units"], before["units"], strict=True))
    tuned = further_tuning(tmp_path)
    assert tuned["units"] == before["units"] and tuned["error_before_finetuning"] == before["error"]
    assert tuned["settings"]["finetune_teacher"] == str(tmp_path / "dense")
    lasso = results["vgglike-ssl"]
    assert lasso["flops_speedup"] > 1 and lasso["max_logit_difference"] < 1e-4
