"""The layer as any Keras layer is used: built, trained, saved, loaded, distributed; and which calls share a sample."""

import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from mpmath import fp

from keras_sbp import keras_private
from keras_sbp.layers import sbp
from keras_sbp.layers.sbp import SBP
from tests.support import scripts

UNITS = 5
# Noise that is narrow, wide, narrow but far down, and with an SNR just above 1 and just below.
MU = [0.0, -3.0, -15.0, -2.0, -2.0]
LOG_SIGMA = [-5.0, 2.5, -2.0, 0.1, 0.2]


def built(mu=MU, log_sigma=LOG_SIGMA, **options):
    layer = SBP(**options)
    layer.build((None, len(mu)))
    layer.mu.assign(mu)
    layer.log_sigma.assign(log_sigma)
    return layer


def ramp(*shape, dtype="float32"):
    return np.linspace(0.5, 2, np.prod(shape)).reshape(shape).astype(dtype)


def true_mean_and_snr(mu, log_sigma):
    """By numerical integration over log theta."""
    sigma = fp.exp(log_sigma)
    cuts = sorted({-20, 0, *(min(max(mu + k * sigma, -20), 0) for k in range(-8, 9))})

    def integral(k):
        return fp.quad(lambda x: fp.exp(k * x - ((x - mu) / sigma) ** 2 / 2), cuts)

    mean, square = integral(1) / integral(0), integral(2) / integral(0)
    return mean, mean / fp.sqrt(square - mean**2)


# The noise


@pytest.mark.parametrize("shape", [(7, UNITS), (7, 3, UNITS), (7, 3, 2, UNITS), (7, 3, 2, 4, UNITS)])
def test_each_call_multiplies_units_by_one_sample(shape):
    layer, x = built(seed=1), ramp(*shape)
    thetas = []
    for _ in range(2):
        outputs = layer(x, training=True)
        assert outputs.shape == shape == layer.compute_output_shape(shape)
        ratio = (outputs.numpy() / x).reshape(-1, UNITS)
        np.testing.assert_allclose(ratio, np.tile(ratio[0], (len(ratio), 1)), rtol=1e-6)
        thetas.append(ratio[0])
    assert np.all((np.exp(-20) < np.array(thetas)) & (np.array(thetas) <= 1))
    assert np.all(thetas[0] != thetas[1])
    assert len(set(thetas[0])) == UNITS


@pytest.mark.parametrize(
    "name, value",
    [
        ("kl_weight", -1), ("kl_weight", np.nan), ("kl_weight", np.inf), ("scale", 0), ("scale", -1), ("scale", np.nan),
        ("scale", np.inf), ("log_sigma", 9), ("log_sigma", -20.5), ("log_sigma", np.nan),
    ],
)  # fmt: skip
def test_arguments_outside_their_bounds_are_refused(name, value):
    with pytest.raises(ValueError, match=f"^{name}=.*: give a number") as raised:
        SBP(**{name: value})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("shape", [(), (None,), (3, None)])
def test_inputs_without_a_known_number_of_units_are_refused(shape):
    with pytest.raises(ValueError, match=r"needs \(batch, ..., units\), with a known number of units"):
        SBP()(keras.Input(shape))


def test_equal_seeds_give_equal_samples():
    x = ramp(2, UNITS)
    calls = {seed: [built(seed=seed)(x, training=True).numpy() for _ in range(2)] for seed in (1, 2)}
    for seed in calls:
        np.testing.assert_array_equal(*calls[seed])
    assert np.all(calls[1][0] != calls[2][0])
    assert np.any(built()(x, training=True) != built()(x, training=True))


def test_samples_have_the_mean_and_snr_of_the_distribution():
    n = 10_000
    theta = built(np.repeat(MU, n), np.repeat(LOG_SIGMA, n), seed=3).sample().numpy().reshape(UNITS, n)
    for sample, *point in zip(theta, MU, LOG_SIGMA):
        mean, snr = true_mean_and_snr(*point)
        assert abs(sample.mean() - mean) < 4 * mean / snr / np.sqrt(n)
        assert abs(sample.mean() / sample.std() - snr) < 0.05 * snr


# At test time


@pytest.mark.parametrize("threshold, num_live", [(0.0, 5), (0.5, 4), (1.0, 3), (2.0, 2)])
def test_live_units_are_multiplied_by_the_mean_and_the_others_by_zero(threshold, num_live):
    mean, snr = np.transpose([true_mean_and_snr(*point) for point in zip(MU, LOG_SIGMA)])
    x = ramp(4, 3, UNITS)
    layer = built(threshold=threshold)
    np.testing.assert_allclose(layer.snr(), snr, rtol=1e-5)
    live = snr > threshold
    assert live.sum() == num_live
    np.testing.assert_array_equal(layer.live_units(), live)
    for outputs in (layer(x), layer(x, training=False)):
        np.testing.assert_allclose(outputs, x * np.where(live, mean, 0), rtol=1e-5)
        assert np.all(outputs.numpy()[..., ~live] == 0)


def test_evidence_keeps_units_whose_density_at_the_low_end_is_below_the_priors_by_a_factor_e():
    """A unit without effect has the prior as its posterior, with density 1 / 20."""
    mu, log_sigma = [*MU[:2], -9.96, -19.0, -12.0], [*LOG_SIGMA[:2], 5.0, 1.0, 1.0]
    layer = built(mu, log_sigma, criterion="evidence")
    posterior = [(m, fp.exp(s)) for m, s in zip(mu, log_sigma)]
    at_0 = [fp.npdf(-20, m, s) / (fp.ncdf(0, m, s) - fp.ncdf(-20, m, s)) for m, s in posterior]
    live = np.array(at_0) < 1 / 20 / np.e
    assert at_0[2] < 1 / 20 and live.tolist() == [True, False, False, False, True]
    np.testing.assert_array_equal(layer.live_units(), live)
    np.testing.assert_array_equal(layer(ramp(2, UNITS)) != 0, np.broadcast_to(live, (2, UNITS)))
    with pytest.raises(ValueError, match="snr, evidence"):
        SBP(criterion="tails")


def test_a_new_layer_is_nearly_the_identity():
    layer = SBP()
    outputs = layer(ramp(4, UNITS))
    np.testing.assert_array_equal(layer.mu.numpy(), np.zeros(UNITS))
    np.testing.assert_array_equal(layer.log_sigma.numpy(), np.full(UNITS, -5))
    np.testing.assert_allclose(outputs, ramp(4, UNITS), rtol=0.01)


# As a Keras layer


def test_config_round_trip():
    layer = SBP(threshold=2.5, log_sigma=-3.0, seed=7, criterion="evidence", name="noise", dtype="float64")
    again = SBP.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert (again.threshold, again.seed, again.name, again.dtype) == (2.5, 7, "noise", "float64")
    again.build((None, 2))
    np.testing.assert_array_equal(again.log_sigma.numpy(), [-3, -3])


def test_configs_of_older_files_say_rule():
    config = SBP(criterion="evidence", dtype="float64").get_config()
    config["rule"] = config.pop("criterion")
    layer = SBP.from_config(config)
    assert (layer.criterion, layer.dtype) == ("evidence", "float64")


def sequential():
    return keras.Sequential([keras.Input((UNITS,)), SBP(seed=1), keras.layers.Dense(3), SBP(seed=2)])


def functional():
    inputs = keras.Input((4, UNITS))
    x = SBP(seed=1, threshold=0.5)(inputs)
    return keras.Model(inputs, SBP(seed=2)(keras.layers.Flatten()(x)) + 1)


@pytest.mark.parametrize("make", [sequential, functional])
def test_a_saved_model_gives_the_same_outputs(make, tmp_path):
    model = make()
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, SBP):
            layer.mu.assign(rng.uniform(-4, 1, layer.mu.shape))
            layer.log_sigma.assign(rng.uniform(-3, 2, layer.mu.shape))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = ramp(2, *model.input_shape[1:])
    for training in (False, True):
        np.testing.assert_array_equal(loaded(x, training=training), model(x, training=training))


@pytest.mark.parametrize(
    "policy, variables, outputs",
    [
        ("float32", "float32", "float32"),
        ("float64", "float64", "float64"),
        ("mixed_bfloat16", "float32", "bfloat16"),
        ("bfloat16", "float32", "bfloat16"),
    ],
)
def test_parameters_stay_in_float32_under_mixed_precision(policy, variables, outputs):
    layer, exact = built(dtype=policy, seed=1), built(seed=1)
    x = ramp(3, UNITS)
    assert layer.mu.dtype == layer.log_sigma.dtype == layer.kl_divergence().dtype == layer.snr().dtype == variables
    np.testing.assert_allclose(layer.kl_divergence(), exact.kl_divergence(), rtol=1e-5)
    for training in (False, True):
        actual = layer(x, training=training)
        assert actual.dtype == outputs
        tolerance = 2.0**-6 if outputs == "bfloat16" else 1e-5
        np.testing.assert_allclose(tf.cast(actual, "float32"), exact(x, training=training), rtol=tolerance)


def test_gradients_match_finite_differences():
    """With the same noise in each evaluation."""
    layer = built(dtype="float64", seed=1)
    x, weight = ramp(4, UNITS, dtype="float64"), np.cos(np.arange(UNITS))
    state = layer.seed_generator.state.numpy()

    def loss(mu, log_sigma):
        drawn = [(layer.seed_generator.state, state), (layer.mu, mu), (layer.log_sigma, log_sigma)]
        with keras.StatelessScope(state_mapping=drawn):
            return tf.reduce_sum(layer(x, training=True) * weight) + tf.reduce_sum(layer.kl_divergence())

    point = np.array([MU, LOG_SIGMA])
    with tf.GradientTape() as tape:
        variables = tf.Variable(point)
        value = loss(*tf.unstack(variables))
    gradient = tape.gradient(value, variables).numpy()
    step = 1e-6
    for index in np.ndindex(point.shape):
        shift = np.zeros_like(point)
        shift[index] = step
        difference = (loss(*tf.constant(point + shift)) - loss(*tf.constant(point - shift))) / (2 * step)
        np.testing.assert_allclose(gradient[index], difference, rtol=1e-5, atol=1e-7)


def test_gradients_reach_the_variables():
    layer = built()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(ramp(4, UNITS), training=True))
    gradients = tape.gradient(loss, [v.value for v in layer.trainable_variables])
    assert [v.name for v in layer.trainable_variables] == ["mu", "log_sigma"]
    assert all(np.all(gradient.numpy() != 0) for gradient in gradients)


@pytest.mark.parametrize("optimizer", [keras.optimizers.SGD, keras.optimizers.Adam])
def test_steps_are_clipped_to_the_parameter_bounds(optimizer):
    layer = built([-19.5, 4.5, 0.0], [4.5, -19.5, 0.0])
    gradients = [tf.constant([1.0, -1.0, 0.0]), tf.constant([-1.0, 1.0, 0.0])]
    optimizer(learning_rate=1e3).apply(gradients, layer.trainable_variables)
    np.testing.assert_array_equal(layer.mu.numpy(), [-20, 5, 0])
    np.testing.assert_array_equal(layer.log_sigma.numpy(), [5, -20, 0])
    assert np.all(np.isfinite(layer.kl_divergence()))


def test_fit_keeps_the_informative_unit():
    """Only the first unit predicts the label; the noise of the others grows."""
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(256, UNITS)).astype("float32")
    y = (x[:, :1] > 0).astype("float32")
    layer = SBP(log_sigma=-2.0, seed=1)
    model = keras.Sequential([layer, keras.layers.Dense(1)])
    loss = keras.losses.BinaryCrossentropy(from_logits=True)

    def bound(y, logits):
        return loss(y, logits) + tf.reduce_sum(layer.kl_divergence()) / len(x)

    model.compile(keras.optimizers.Adam(0.1), bound)
    history = model.fit(x, y, epochs=10, batch_size=64, verbose=0).history["loss"]
    assert history[-1] < history[0]
    snr = layer.snr().numpy()
    assert np.all(snr[0] > snr[1:])
    assert model.predict(x, verbose=0).shape == y.shape


# Which calls share a sample


def built_layers(*units):
    layers = [SBP(log_sigma=-1.0, seed=number) for number, _ in enumerate(units)]
    for layer, count in zip(layers, units):
        layer.build((None, count))
    return layers


def called_twice(layer):
    """A model that computes theta x - theta x: 0 if both calls of the layer have the same sample."""
    inputs = keras.Input((UNITS,))
    return keras.Model(inputs, keras.layers.Subtract()([layer(inputs), layer(inputs)]))


def test_sampling_draws_for_each_layer_what_it_would_draw_alone():
    layers = built_layers(4, 7)
    seeds = [layer.seed_generator.state.numpy() for layer in layers]
    alone = [layer.sample().numpy() for layer in layers]
    for layer, seed in zip(layers, seeds):
        layer.seed_generator.state.assign(seed)
    with sbp.sampling(layers) as samples:
        for layer, expected in zip(layers, alone, strict=True):
            np.testing.assert_allclose(samples[layer], expected, rtol=1e-6)
            np.testing.assert_array_equal(layer.sample(), samples[layer])


def test_all_calls_within_sampling_share_a_sample():
    layer, x = built(seed=1), ramp(3, UNITS)
    with sbp.sampling([layer]):
        first = layer(x, training=True)
        np.testing.assert_array_equal(layer(x, training=True), first)
        with sbp.sampling([layer]):
            assert np.all(layer(x, training=True) != first)
        np.testing.assert_array_equal(layer(x, training=True), first)
    assert np.all(layer(x, training=True) != layer(x, training=True))


def test_sampling_ends_with_an_error():
    layer = built(seed=1)
    with pytest.raises(InterruptedError), sbp.sampling([layer]) as samples:
        raise InterruptedError
    assert np.all(layer.sample() != samples[layer])


def test_samples_may_be_replaced():
    (layer,) = built_layers(2)
    with sbp.sampling([layer]) as samples:
        samples[layer] = tf.constant([2.0, 3.0])
        np.testing.assert_array_equal(layer(tf.ones((1, 2)), training=True), [[2, 3]])


class ForwardPass(keras.layers.Layer):
    """Passes its inputs on and notes the forward pass."""

    def call(self, inputs):
        self.seen = keras_private.forward_pass()
        return inputs


def test_keras_tells_forward_passes_apart():
    """The contract of keras_private."""
    layers = [ForwardPass(), ForwardPass()]
    inner = keras.Sequential([keras.Input((2,)), layers[1]])
    model = keras.Sequential([keras.Input((2,)), layers[0], inner])
    passes = []
    for run in (model, model, tf.function(model)):
        run(np.ones((1, 2), np.float32))
        assert layers[0].seen is layers[1].seen
        passes.append(layers[0].seen)
    assert None not in passes and len(set(map(id, passes))) == 3
    assert keras_private.forward_pass() is None


@pytest.mark.parametrize("in_graph", [False, True])
def test_calls_in_one_forward_pass_share_a_sample(in_graph):
    layer, x = SBP(log_sigma=-1.0), ramp(3, UNITS)
    model, thetas = called_twice(layer), keras.Sequential([keras.Input((UNITS,)), layer])

    def two_passes(x):
        return model(x, training=True), thetas(x, training=True), thetas(x, training=True)

    difference, *others = (tf.function(two_passes) if in_graph else two_passes)(x)
    np.testing.assert_array_equal(difference, np.zeros((3, UNITS)))
    assert np.all(others[0] != others[1])


def shapes_of_calls(monkeypatch, name):
    """A list of the shapes that a function of the distribution is called on from now on."""
    shapes, function = [], getattr(sbp.truncated_log_normal, name)

    def counted(values, *others):
        shapes.append(values.shape)
        return function(values, *others)

    monkeypatch.setattr(sbp.truncated_log_normal, name, counted)
    return shapes


def test_the_first_layer_of_a_pass_draws_for_all_of_them_at_once(monkeypatch):
    calls = shapes_of_calls(monkeypatch, "log_quantile")
    layers = built_layers(UNITS, UNITS)
    inner = keras.Sequential([keras.Input((UNITS,)), layers[1]])
    model = keras.Sequential([keras.Input((UNITS,)), layers[0], inner])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(ramp(3, UNITS), training=True))
    assert calls == [(2 * UNITS,)]
    assert all(np.all(gradient != 0) for gradient in tape.gradient(loss, [layer.mu.value for layer in layers]))


def test_the_integrals_at_test_time_are_of_all_layers_at_once(monkeypatch):
    calls = shapes_of_calls(monkeypatch, "mean")
    layers = built_layers(UNITS, UNITS)
    model = keras.Sequential([keras.Input((UNITS,)), *layers])
    layers[1].log_sigma.assign(np.where(np.arange(UNITS) == 1, 5.0, -1.0))
    outputs = model(ramp(3, UNITS)).numpy()
    assert calls == [(2 * UNITS,)]
    np.testing.assert_allclose(outputs, ramp(3, UNITS) * layers[0].multiplier() * layers[1].multiplier(), rtol=1e-6)
    assert np.all(outputs[:, 1] == 0)


class AllLive(SBP):
    def live_units(self):
        return keras.ops.ones(self.mu.shape, "bool")


def test_a_subclass_decides_which_units_are_live():
    layer, own = SBP(log_sigma=5.0), AllLive(log_sigma=5.0)
    model = keras.Sequential([keras.Input((UNITS,)), own])
    assert np.all(keras.Sequential([keras.Input((UNITS,)), layer])(ramp(3, UNITS)).numpy() == 0)
    assert np.all(model(ramp(3, UNITS)).numpy() > 0) and np.all(sbp.multipliers([own])[own].numpy() > 0)


class Perturbed(keras.layers.Layer):
    """E theta, and after a step of mu within the same pass."""

    def __init__(self):
        super().__init__()
        self.noise = SBP(log_sigma=-5.0)

    def call(self, inputs):
        before = self.noise(inputs)
        self.noise.mu.assign(self.noise.mu - 1)
        return before, self.noise(inputs)


def test_weights_that_change_within_a_pass_count_at_test_time():
    before, after = Perturbed()(np.ones((1, UNITS), np.float32))
    assert np.all(after < 0.5 * before)


class Block(keras.layers.Layer):
    """A dense layer and noise."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.dense, self.noise = keras.layers.Dense(UNITS), SBP(log_sigma=-1.0)

    def build(self, shape):
        self.dense.build(shape)
        self.noise.build(shape)

    def call(self, inputs):
        return self.noise(self.dense(inputs))


def test_a_float64_network_with_noise_is_trained():
    dense = keras.layers.Dense(1, dtype="float64")
    noise = SBP(kl_weight=1.0, dtype="float64")
    model = keras.Sequential([keras.Input((UNITS,), dtype="float64"), noise, dense])
    model.compile("sgd", "mse")
    model.fit(np.zeros((8, UNITS)), np.zeros((8, 1)), verbose=0)
    assert noise.mu.dtype == "float64" and np.all(noise.mu.numpy() != 0)


@pytest.mark.parametrize("run_eagerly", [pytest.param(False, marks=pytest.mark.slow), True])
def test_noise_after_a_block_that_is_rematerialized_is_trained(run_eagerly):
    with keras.RematScope(mode="list_of_layers", layer_names=["block"]):
        block = Block(name="block")
    after = SBP(log_sigma=-1.0)
    model = keras.Sequential([keras.Input((UNITS,)), block, after, keras.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=run_eagerly)
    model.fit(ramp(8, UNITS), np.ones((8, 1)), verbose=0)
    assert np.all(after.mu.numpy() != 0) and np.all(block.noise.mu.numpy() != 0)


@pytest.mark.parametrize("in_graph", [False, True])
def test_each_of_two_passes_in_a_step_has_gradients(in_graph):
    """As in sharpness-aware minimization, or where gradients of several batches are accumulated."""
    layer, x = SBP(log_sigma=-1.0), ramp(3, UNITS)
    model = keras.Sequential([keras.Input((UNITS,)), layer])

    def gradients():
        found = []
        for _ in range(2):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(model(x, training=True))
            found.append(tape.gradient(loss, layer.mu.value))
        return found

    one, other = (tf.function(gradients) if in_graph else gradients)()
    assert np.all(one != 0) and np.all(other != 0) and np.all(one != other)


class InBranch(keras.layers.Layer):
    """theta x, computed in a branch of a graph, and once more outside of it."""

    def __init__(self, noise):
        super().__init__()
        self.noise = noise

    def call(self, inputs, training=False):
        inside = tf.cond(inputs[0, 0] > 0, lambda: self.noise(inputs, training=training), lambda: inputs)
        return inside, self.noise(inputs, training=training)


def test_calls_inside_and_outside_of_a_branch_work_in_one_forward_pass():
    (layer,) = built_layers(4)
    inside, outside = tf.function(InBranch(layer))(tf.ones((3, 4)), training=True)
    assert np.all((0 < inside.numpy()) & (inside.numpy() < 1)) and np.all((0 < outside.numpy()) & (outside.numpy() < 1))


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_calls_share_a_sample_in_fit(run_eagerly):
    model = called_twice(SBP(log_sigma=-1.0))
    model.compile("sgd", "mse", run_eagerly=run_eagerly)
    assert model.fit(ramp(8, UNITS), np.zeros((8, UNITS)), epochs=2, verbose=0).history["loss"] == [0, 0]


def test_a_finished_graph_is_not_kept(monkeypatch):
    # TensorFlow's own registry of gradients keeps the graph of a custom gradient.
    monkeypatch.setattr(sbp.truncated_log_normal, "log_quantile", lambda u, mu, log_sigma: mu + u * log_sigma)
    model, graphs = called_twice(SBP(log_sigma=-1.0)), []

    def traced(x):
        graphs.append(weakref.ref(tf.compat.v1.get_default_graph()))
        return model(x, training=True)

    function = tf.function(traced)
    function(ramp(3, UNITS))
    assert graphs[0]() is not None
    del function
    gc.collect()
    assert graphs[0]() is None


def test_a_layer_is_not_kept_after_a_forward_pass():
    model = called_twice(SBP(log_sigma=-1.0, name="noise"))
    reference = weakref.ref(model.get_layer("noise"))
    model(ramp(3, UNITS), training=True)
    assert not sbp._computed
    del model
    gc.collect()
    assert reference() is None


def test_training_leaves_no_samples_in_the_layer(tmp_path):
    layer = SBP(log_sigma=-1.0, name="noise")
    model = called_twice(layer)
    before = set(vars(layer))
    model.compile("sgd", "mse")
    model.fit(ramp(8, UNITS), np.zeros((8, UNITS)), verbose=0)
    assert set(vars(layer)) == before
    assert not any(isinstance(value, tf.Tensor) for value in vars(layer).values())
    model.save(tmp_path / "model.keras")
    for other in (keras.models.load_model(tmp_path / "model.keras"), keras.models.clone_model(model)):
        assert other.get_layer("noise").get_config() == layer.get_config()
        assert other(ramp(2, UNITS), training=True).shape == (2, UNITS)


TWO_TOWERS = """
import keras, numpy as np, tensorflow as tf
from keras_sbp.layers.sbp import SBP
from tests.test_sbp import called_twice

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    layer = SBP(log_sigma=-1.0, seed=1)
    model = keras.Sequential([keras.Input((4,)), layer, keras.layers.Dense(1)])
    model.compile("adam", "mse")
    twice = called_twice(SBP(log_sigma=-1.0))
    twice.compile("sgd", "mse")

towers = tf.function(lambda: strategy.run(lambda: layer(tf.ones((3, 4)), training=True)))
for outputs in strategy.experimental_local_results(towers()):
    theta = outputs.numpy()
    assert theta.shape == (3, 4) and np.all((0 < theta) & (theta <= 1)) and np.all(theta == theta[0]), theta
assert twice.fit(np.ones((16, 5)), np.zeros((16, 5)), batch_size=8, verbose=0).history["loss"] == [0]

before = layer.mu.numpy()
model.fit(np.ones((16, 4)), np.zeros(16), batch_size=8, epochs=2, verbose=0)
assert np.all(layer.mu.numpy() != before)
for variable in layer.trainable_variables:
    one, two = strategy.experimental_local_results(variable.value)
    assert one.device != two.device
    np.testing.assert_array_equal(one, two)
print("two towers")
"""


@pytest.mark.slow
def test_two_towers_train_and_calls_on_each_share_a_sample():
    done = scripts.run(TWO_TOWERS, before=[("two_cpus",)])
    assert "two towers" in done.stdout, done.stderr
