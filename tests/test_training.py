"""Training: the evidence lower bound, towers, restarts, losses that are not finite, networks that shrink."""

import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from keras_sbp.layers.sbp import SBP
from keras_sbp.nets import NETWORKS, lenet5, lenet_fc
from keras_sbp.utils import pruning, training
from keras_sbp.utils.io import checkpoint, data, preprocessing
from keras_sbp.utils.io.command_line import UserError
from keras_sbp.utils.methods import StructuredBP
from keras_sbp.utils.training import loop, noise, shrinking, state
from tests.support import scripts
from tests.support.steps import steps, train


def network(unit=SBP):
    inputs = keras.Input((28, 28, 1))
    x = keras.layers.Conv2D(3, 5, strides=3, activation="relu", name="conv")(inputs)
    x = unit(name="conv_unit")(x)
    x = keras.layers.Flatten(name="flat")(x)
    x = keras.layers.Dense(12, activation="relu", name="dense")(x)
    x = unit(name="dense_unit")(x)
    return keras.Model(inputs, keras.layers.Dense(10, name="logits")(x))


def kl(model, progress=None):
    return tf.add_n([tf.reduce_sum(layer.kl_divergence()) for layer in model.layers if isinstance(layer, SBP)])


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", "", "train")


def test_the_first_gradient_is_that_of_the_evidence_lower_bound(digits):
    """Adam's first moment after a step is (1 - beta1) times the gradient: here, finite differences of N CE + KL."""
    keras.utils.set_random_seed(1)
    model = network(lambda name: SBP(log_sigma=-20.0, name=name))
    images = preprocessing.scale(digits.images[:1500]).numpy()

    def bound(bias):
        model.get_layer("logits").bias.assign(bias)
        logits = tf.cast(model(images, training=True), tf.float64).numpy()
        cross_entropy = np.log(np.exp(logits).sum(1)) - logits[np.arange(1500), digits.labels]
        return 1500 * cross_entropy.mean()

    h = 1e-2
    gradient = [(bound(h * np.eye(10)[i]) - bound(-h * np.eye(10)[i])) / (2 * h) for i in range(10)]
    model.get_layer("logits").bias.assign(np.zeros(10))
    step = steps(digits, kl=kl, batch_size=1500)(model)
    sums, _ = step.run(0, 0, 1)
    moment = step.state()["optimizer/adam_0/logits_bias_momentum"]
    np.testing.assert_allclose(moment / (1 - 0.95), gradient, rtol=1e-3, atol=1e-2)
    # KL of 12 + 3 narrow units: log(b - a) - log sigma - log(2 pi e) / 2, and log 2 as mu is an end of the interval.
    expected = 15 * (np.log(20) + 20 - np.log(2 * np.pi * np.e) / 2 + np.log(2))
    assert float(sums[2]) == pytest.approx(expected, rel=1e-5)


class PlainDense(keras.layers.Dense):
    """A Dense layer that is unknown to the step: its kernel absorbs no noise."""


class PlainConv(keras.layers.Conv2D):
    """A convolution that is unknown to the step."""


@pytest.mark.parametrize("log_sigma", [pytest.param(-5.0, marks=pytest.mark.slow), 0.0])
@pytest.mark.parametrize(
    "build, plain",
    [
        (lenet_fc.lenet_fc, {"dense": PlainDense}),
        pytest.param(lenet5.lenet5, {"dense": PlainDense, "conv": PlainConv}, marks=pytest.mark.slow),
    ],
)
def test_noise_absorbed_by_a_kernel_gives_the_same_gradients(digits, build, plain, log_sigma):
    found = []
    for layers in ({}, plain):
        keras.utils.set_random_seed(1)
        model = build(unit=lambda name: SBP(log_sigma=log_sigma, name=name), **layers)
        assert bool(noise.absorptions(model, 100)) == (not layers), "both would be computed in the same way"
        step = steps(digits, kl=kl, weight_decay=1e-3)(model)
        sums, _ = step.run(0, 0, 1)
        moments = {name: a for name, a in step.state().items() if name.endswith("_momentum")}
        found.append({"metrics": sums.numpy(), **moments})
    assert len(found[0]) > 12
    for name, value in found[0].items():
        scale = np.abs(value).max()
        np.testing.assert_allclose(found[1][name] / scale, value / scale, atol=5e-6, err_msg=name)


def test_kernels_absorb_noise_if_smaller_than_the_units_of_a_batch_or_next_to_the_images():
    def pairs(model, batch_size):
        return [(found.noise.name, found.consumer.name) for found in noise.absorptions(model, batch_size)]

    def in_kernel(model, batch_size):
        return [found.in_kernel for found in noise.absorptions(model, batch_size)]

    fully, convolutional = lenet_fc.lenet_fc(unit=named), lenet5.lenet5(unit=named)
    # Units per image and weights: 500 and 150,000; 300 and 3,000.
    assert pairs(fully, 10) == [("pixels_unit", "dense1")]
    assert in_kernel(fully, 500) == [False, True, True]
    assert in_kernel(fully, 501) == [True, True, True]
    assert pairs(fully, 11) == [("pixels_unit", "dense1"), ("dense2_unit", "logits")]
    assert pairs(fully, 301) == [("pixels_unit", "dense1"), ("dense1_unit", "dense2"), ("dense2_unit", "logits")]
    # 12 * 12 * 20 = 2,880 and 25,000; 800 and 400,000; 500 and 5,000; the second convolution's are flattened first.
    assert pairs(convolutional, 8) == []
    assert pairs(convolutional, 9) == [("conv1_unit", "conv2")]
    assert pairs(convolutional, 500) == [("conv1_unit", "conv2"), ("dense1_unit", "logits")]
    assert pairs(convolutional, 501)[1] == ("features_unit", "dense1")
    # A network with pixels removed.
    fewer, _ = pruning.remove_units(fully, {"pixels_unit": np.arange(784) < 500})
    assert pairs(fewer, 10) == [("pixels_unit", "dense1")]


def named(name):
    return SBP(name=name)


def test_noise_with_two_consumers_is_not_absorbed():
    inputs = keras.Input((28, 28, 1))
    x = SBP()(keras.layers.Flatten()(inputs))
    outputs = keras.layers.Add()([keras.layers.Dense(10)(x), keras.layers.Dense(10)(x)])
    assert noise.absorptions(keras.Model(inputs, outputs), 10**6) == []


def test_weight_decay_is_half_the_squared_norm_of_the_kernels_per_image(digits):
    found = []
    for weight_decay in (0.0, 1e-3):
        keras.utils.set_random_seed(1)
        model = network()
        kernels = {layer.name: layer.kernel.numpy() for layer in model.layers if hasattr(layer, "kernel")}
        step = steps(digits, kl=kl, weight_decay=weight_decay)(model)
        sums, _ = step.run(0, 0, 1)
        found.append((float(sums[3]), step.state()))
    (none, without), (decay, with_decay) = found
    assert none == 0
    assert decay == pytest.approx(1500 * 1e-3 * sum(np.sum(kernel**2) for kernel in kernels.values()) / 2, rel=1e-5)
    for name, kernel in kernels.items():
        moment = f"optimizer/adam_0/{name}_kernel_momentum"
        # The first moment is 1 - 0.95 times the gradient.
        gradient = (with_decay[moment] - without[moment]) / 0.05
        np.testing.assert_allclose(gradient, 1500 * 1e-3 * kernel, atol=2e-3 * np.abs(with_decay[moment]).max())


@pytest.mark.parametrize("name", ["LSTM", "ViT"])
def test_weight_decay_reaches_kernels_inside_of_recurrence_and_attention(name):
    """Every matrix but tables, whose names end in embeddings, of layers without noise."""
    model = NETWORKS[name].build()
    matrices = [w.numpy() for w in model.trainable_weights if len(w.shape) > 1 and "kernel" in w.path]
    assert sum(matrix.size for matrix in matrices) > 0.9 * model.count_params()
    decay = training.Objective(weight_decay=1e-3).decay(model, 10, 0.0)
    assert float(decay) == pytest.approx(10 * 1e-3 * sum(np.sum(m.astype(float) ** 2) for m in matrices) / 2, rel=1e-5)


def test_growing_decay_starts_at_a_thousandth_and_grows_linearly():
    model, whole = network(), training.Objective(weight_decay=1e-3)
    growing = training.Objective(weight_decay=1e-3, growing_decay=True)
    for progress, fraction in ((0.0, 0.001), (0.5, 0.5005), (1.0, 1.0)):
        expected = fraction * float(whole.decay(model, 10, progress))
        assert float(growing.decay(model, 10, progress)) == pytest.approx(expected)


def test_label_smoothing_spreads_a_fraction_of_the_label(digits):
    keras.utils.set_random_seed(1)
    model = network(keras.layers.Identity)
    logits = model(preprocessing.scale(digits.images)).numpy().astype(float)
    log_probabilities = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    expected = -np.mean(0.9 * log_probabilities[np.arange(1500), digits.labels] + 0.1 * log_probabilities.mean(1))
    step = steps(digits, batch_size=1500, label_smoothing=0.1)(model)
    sums, _ = step.run(0, 0, 1)
    assert float(sums[0]) == pytest.approx(expected, rel=1e-5)


def test_a_teachers_outputs_are_targets_beside_the_labels():
    """Hinton, Vinyals and Dean (2015), section 2: at a temperature, whose square multiplies it."""
    random = np.random.default_rng(0)
    logits, teachers = random.normal(size=(2, 5, 3)).astype(np.float32)
    labels = np.array([0, 2, 1, 1, 0])
    objective = training.Objective(teacher=keras.Sequential(), soft_labels=0.7, temperature=4.0)
    of_teacher, of_model = (scipy.special.log_softmax(values / 4, -1) for values in (teachers, logits))
    soft = -(np.exp(of_teacher) * of_model).sum(-1).mean()
    cross_entropy = -scipy.special.log_softmax(logits, -1)[np.arange(5), labels].mean()
    expected = 0.3 * cross_entropy + 0.7 * 16 * soft
    found = objective.data_term(tf.constant(logits), tf.constant(labels), tf.constant(teachers))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_teacher_is_asked_about_the_images_of_the_step(digits):
    """With every image once, the loss is the mean over the images; the teacher's dropout is off."""
    keras.utils.set_random_seed(0)
    model = lenet_fc.lenet_fc(width=0.1)
    own = keras.layers.Flatten(), keras.layers.Dropout(0.5), keras.layers.Dense(10)
    teacher = keras.Sequential([keras.Input((28, 28, 1)), *own])
    images = preprocessing.scale(digits.images)
    of_teacher, of_model = (scipy.special.log_softmax(network(images), -1) for network in (teacher, model))
    step = steps(digits, teacher=teacher, soft_labels=1.0, rate=lambda variable: 1e-30)(model)
    sums, _ = step.run(0, 0, 15)
    np.testing.assert_allclose(sums[0] / 15, -(np.exp(of_teacher) * of_model).sum(-1).mean(), rtol=1e-5)


def test_kl_scales_of_layers_change_linearly():
    """Lenet-fc's 784, 500 and 300 units at mu = 0, log sigma = -5: half a normal, far from the lower end."""
    unit = np.log(20) + 5 + np.log(2) - np.log(2 * np.pi * np.e) / 2
    model = lenet_fc.lenet_fc(unit=named)

    def nats(progress, **hyperparameters):
        return float(StructuredBP(**hyperparameters).kl(model)(model, tf.constant(progress)))

    assert nats(0.3) == pytest.approx(1584 * unit, rel=1e-5)
    for progress, scales in ((0.0, (4, 2, 1)), (0.25, (2.5, 1.5, 1)), (0.5, (1, 1, 1)), (0.9, (1, 1, 1))):
        expected = np.dot(scales, (784, 500, 300)) * unit
        assert nats(progress, initial_kl_scale=(4.0, 2.0, 1.0)) == pytest.approx(expected, rel=1e-5)
    # Relative to the mean, the costs of all units add up to their number.
    assert nats(0.9, final_price=4.0) == pytest.approx(5 * 1584 * unit, rel=1e-5)
    # MACs per unit: 500; 784 + 300; 500 + 10.
    mean = (784 * 500 + 500 * 1084 + 300 * 510) / 1584
    for layer, count, units_cost in (("pixels", 784, 500), ("dense1", 500, 1084), ("dense2", 300, 510)):
        log_sigma = model.get_layer(f"{layer}_unit").log_sigma
        log_sigma.assign(log_sigma - 1)  # one nat more per unit
        expected = 3 * 1584 * unit + count * (1 + 2 * units_cost / mean)
        assert nats(0.25, price=4.0) == pytest.approx(expected, rel=1e-5)
        log_sigma.assign(log_sigma + 1)
    for wrong in ((), (1.0, 2.0), (-1.0,), (float("inf"),)):
        with pytest.raises(UserError, match="--kl_scale"):
            nats(0.9, kl_scale=wrong)


def test_a_learning_rate_of_zero_freezes_a_variable(digits):
    model = network()
    before = model.get_layer("dense").kernel.numpy()

    def rate(variable):
        return 0.0 if variable.path == "dense/kernel" else 1e-2

    steps(digits, kl=kl, rate=rate)(model).run(0, 0, 3)
    np.testing.assert_array_equal(model.get_layer("dense").kernel.numpy(), before)


def test_a_batch_larger_than_the_training_set_is_refused(digits):
    with pytest.raises(UserError, match="1500 training images: use a smaller value"):
        steps(digits, kl=kl, batch_size=1501)(network())


def test_a_checkpoint_with_another_number_of_steps_per_epoch_is_refused(digits, tmp_path):
    """As when two machines leave it to one: it would be at another point of the epoch."""
    train(network(), steps(digits, kl=kl, epochs=1), tmp_path)
    with pytest.raises(UserError, match="15 steps per epoch, not 30"):
        train(network(), steps(digits, kl=kl, batch_size=50), tmp_path)


def test_a_run_interrupted_within_an_epoch_resumes_to_the_same_bits(digits, tmp_path, monkeypatch):
    def trained(directory):
        directory.mkdir(exist_ok=True)
        keras.utils.set_random_seed(0)
        train(network(), steps(digits, kl=kl), directory)
        return checkpoint.latest(directory)

    whole = trained(tmp_path / "whole")
    # Steps per call of the graph, and a checkpoint after each call.
    monkeypatch.setattr(loop, "MAX_STEPS_PER_CALL", 4)
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_CHECKPOINTS", -1)
    save = checkpoint.save

    def save_and_end(directory, steps_done, arrays):
        save(directory, steps_done, arrays)
        if steps_done > 15:
            raise InterruptedError

    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(checkpoint, "save", save_and_end)
        trained(tmp_path / "cut")
    saved = checkpoint.latest(tmp_path / "cut")
    assert saved["done"] % 15
    one = tf.distribute.get_strategy()
    _, progress = state.resume(tmp_path / "cut", network(), steps(digits, kl=kl), one)
    np.testing.assert_array_equal(progress.metric_sums, saved["total"])
    assert progress.steps_done == saved["done"] and progress.metric_sums[0] > 0
    cut = trained(tmp_path / "cut")
    assert set(cut) == set(whole) and cut["done"] == 30
    for name in set(cut) - {"config", "seconds", "total"}:
        np.testing.assert_array_equal(cut[name], whole[name], err_msg=name)


def test_training_stops_at_a_loss_that_is_not_finite_and_keeps_the_last_checkpoint(digits, tmp_path, monkeypatch):
    extra = tf.Variable(0.0)
    save = checkpoint.save

    def save_then_break(*arguments):
        save(*arguments)
        extra.assign(np.nan)

    monkeypatch.setattr(checkpoint, "save", save_then_break)
    breaking = steps(digits, epochs=4, kl=lambda model, progress: kl(model) + extra)
    with pytest.raises(UserError, match="no longer finite at step 15 "):
        train(network(), breaking, tmp_path)
    arrays = checkpoint.latest(tmp_path)
    assert arrays["done"] == 15
    assert all(np.isfinite(value).all() for name, value in arrays.items() if "/" in name)


@pytest.mark.slow
def test_dead_units_are_removed_from_the_running_network_with_their_moments(digits, tmp_path):
    """Units that start dead and stay so: after shrink_every epochs, the others continue in the state that they had."""
    model = network()
    dead = np.arange(12) % 3 == 0
    model.get_layer("dense_unit").mu.assign(np.where(dead, -19.0, -1.0))
    model.get_layer("dense_unit").log_sigma.assign(np.where(dead, 5.0, -3.0))
    still = steps(digits, kl=kl, rate=lambda variable: 1e-9, epochs=3)
    for directory in ("whole", "smaller"):
        (tmp_path / directory).mkdir()
    whole = train(model, still, tmp_path / "whole")
    smaller = train(model, still, tmp_path / "smaller", shrink_every=1)
    assert whole.get_layer("dense").units == 12 and smaller.get_layer("dense").units == 8
    np.testing.assert_allclose(
        smaller.get_layer("logits").kernel.numpy(), whole.get_layer("logits").kernel.numpy()[~dead], atol=1e-6
    )
    images = preprocessing.scale(digits.images[:50])
    np.testing.assert_allclose(smaller(images), whole(images), rtol=1e-4, atol=1e-5)
    before, after = checkpoint.latest(tmp_path / "whole"), checkpoint.latest(tmp_path / "smaller")
    assert after["optimizer/adam_0/dense_kernel_velocity"].shape == (192, 8)
    assert before["optimizer/adam_0/iteration"] == after["optimizer/adam_0/iteration"] == 45


def test_a_restart_knows_how_many_epochs_units_were_dead(digits, tmp_path):
    model, dead = network(), np.arange(12) % 3 == 0
    model.get_layer("dense_unit").mu.assign(np.where(dead, -19.0, -1.0))
    model.get_layer("dense_unit").log_sigma.assign(np.where(dead, 5.0, -3.0))
    still = steps(digits, kl=kl, rate=lambda variable: 1e-9)
    train(model, still, tmp_path)
    _, progress = state.resume(tmp_path, network(), still, tf.distribute.get_strategy())
    np.testing.assert_array_equal(progress.epochs_dead["dense_unit"], 2 * dead)
    np.testing.assert_array_equal(progress.epochs_dead["conv_unit"], np.zeros(3))


def test_epochs_dead_restart_at_zero_when_a_unit_is_live():
    model = network()
    dead = np.arange(12) % 3 == 0
    model.get_layer("dense_unit").mu.assign(np.where(dead, -19.0, -1.0))
    model.get_layer("dense_unit").log_sigma.assign(np.where(dead, 5.0, -3.0))
    epochs_dead = shrinking.count_epochs_dead({"conv_unit": 0, "dense_unit": np.arange(12)}, model)
    np.testing.assert_array_equal(epochs_dead["dense_unit"], [1, 0, 0, 4, 0, 0, 7, 0, 0, 10, 0, 0])
    np.testing.assert_array_equal(epochs_dead["conv_unit"], [0, 0, 0])


def test_only_units_dead_for_the_given_number_of_epochs_are_removed(digits):
    make_step = steps(digits, kl=kl)
    epochs_dead = {"conv_unit": np.array([0, 0, 0]), "dense_unit": np.array([1] * 4 + [2] * 4 + [3] * 4)}
    step, left = shrinking.remove_dead_units(make_step(network()), make_step, epochs_dead, 2)
    assert step.model.get_layer("dense").units == 4
    np.testing.assert_array_equal(left["dense_unit"], [1] * 4)


def test_the_kl_divergence_is_called_with_the_progress_of_the_training(digits):
    """In the second of two epochs of 15 steps: 15 / 30 to 29 / 30."""
    step = steps(digits, kl=lambda model, progress: progress, epochs=2)(network())
    sums, _ = step.run(1, 0, 15)
    assert float(sums[2]) == pytest.approx(sum(range(15, 30)) / 30)


def test_units_worth_less_than_a_tenth_of_the_macs_stay_in_the_running_network(digits, tmp_path):
    """A dense unit: 192 + 10 of 64 * 75 + 192 * 12 + 120 MACs, 2.8 %."""
    model = network()
    model.get_layer("dense_unit").mu.assign([-19.0] + [-1.0] * 11)
    model.get_layer("dense_unit").log_sigma.assign([5.0] + [-3.0] * 11)
    still = steps(digits, kl=kl, rate=lambda variable: 1e-9)
    trained = train(model, still, tmp_path, shrink_every=1)
    assert trained.get_layer("dense").units == 12
    assert np.sum(trained.get_layer("dense_unit").multiplier() == 0) == 1


TOWERS = """
import sys
import keras, numpy as np, tensorflow as tf
from keras_sbp.layers import sbp, truncated_log_normal
from tests.support.steps import steps
from tests.test_training import kl, network
from keras_sbp.utils.io import data
from keras_sbp.utils.training import updates
# The noise held constant: u grows with the index of a unit.
sbp._draw = lambda layers: {layer: tf.exp(truncated_log_normal.log_quantile(
    tf.linspace(0.1, 0.9, layer.mu.shape[0]), layer.mu.value, layer.log_sigma.value)) for layer in layers}
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]) if sys.argv[1] == "2" else tf.distribute.get_strategy()
keras.utils.set_random_seed(0)
digits = data.load("digits", "", "train")
with strategy.scope():
    model = network()
batch_size = 128 // strategy.num_replicas_in_sync
optimizer = getattr(updates, sys.argv[3])
step = steps(digits, kl=kl, batch_size=batch_size, strategy=strategy, optimizer=optimizer)(model)
sums, _ = step.run(0, 0, 3)
np.savez(sys.argv[2], sums=sums, **{name.replace("/", "."): value for name, value in step.state().items()})
"""


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_two_towers_with_64_images_take_the_step_of_one_with_128(optimizer, tmp_path):
    for count in ("1", "2"):
        done = scripts.run(TOWERS, count, tmp_path / f"{count}.npz", optimizer, before=[("two_cpus",)])
        assert done.returncode == 0, done.stderr
    one, two = np.load(tmp_path / "1.npz"), np.load(tmp_path / "2.npz")
    assert set(one) == set(two)
    for name in one:
        scale = np.abs(one[name]).max()
        np.testing.assert_allclose(two[name], one[name], atol=1e-5 * max(scale, 1e-30), err_msg=name)


TOWER_BATCHES = """
import numpy as np, tensorflow as tf
from keras_sbp.utils import training
from keras_sbp.utils.io import data
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
images = data.Images(np.arange(40, dtype=np.uint8)[:, None], np.arange(40, dtype=np.int32))
batches = training.Batches(images, lambda images, seed: (images, seed), 8, 3, strategy)

@tf.function
def tower_batches(epoch, step):
    order = batches.order(epoch)
    return order, strategy.run(batches.tower_batch, (*batches.copies, order, epoch, step, 2))

seeds, orders = [], set()
for epoch in range(3):
    for step in range(batches.steps_per_epoch):
        order, ((seen, own), labels, more) = tower_batches(tf.constant(epoch), tf.constant(step))
        seen, labels = (np.concatenate([np.ravel(part) for part in value.values]) for value in (seen, labels))
        np.testing.assert_array_equal(seen, order[16 * step : 16 * step + 16])
        np.testing.assert_array_equal(labels, seen)
        seeds += [tuple(seed) for tower in (0, 1) for seed in [own.values[tower].numpy(), *more.values[tower].numpy()]]
    assert sorted(order.numpy()) == list(range(40))
    orders.add(tuple(order.numpy()))
print(batches.steps_per_epoch, len(seeds), len(set(seeds)), len(orders))
"""


def test_each_tower_has_its_own_images_and_its_own_seeds():
    """Two towers with 8 images: two steps in each of three epochs, three seeds per tower and step, all different."""
    done = scripts.run(TOWER_BATCHES, before=[("two_cpus",)])
    assert done.stdout.split() == ["2", "36", "36", "3"], done.stderr


def test_mixed_precision_trains_with_noise_parameters_in_float32(digits):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = network()
    finally:
        keras.config.set_dtype_policy(policy)
    step = steps(digits, kl=kl, epochs=20)(model)
    first, _ = step.run(0, 0, 15)
    for epoch in range(1, 10):
        last, _ = step.run(epoch, 0, 15)
    assert last[0] < first[0] / 2
    assert model.get_layer("dense_unit").mu.dtype == "float32"
