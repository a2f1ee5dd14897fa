"""Targets: units are removed along a path while a network is trained, and the MACs are met at the end."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_sbp as sbp
from keras_sbp.utils.pruning import fit
from keras_sbp.utils.tool import compact, targets
from tests.support.digits import dense, digits

pytestmark = pytest.mark.usefixtures("no_latency")

SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
MACS = 64 * 48 + 48 * 32 + 32 * 10  # of `dense`


def test_a_target_between_two_thresholds_is_met_by_units_worth_fewer_macs():
    """A filter of the convolution is a sixth of the network, which no threshold splits: dense units do."""
    inputs = keras.Input((8, 8, 3))
    hidden = layers.Conv2D(6, 3, activation="relu")(inputs)
    model = keras.Model(inputs, layers.Dense(10)(layers.Dense(40, activation="relu")(layers.Flatten()(hidden))))
    noisy = sbp.insert(model, 1e-3)
    conv, first = (layer.name for layer in noisy.layers if hasattr(layer, "mu"))
    # Dense units are removed after the convolution's.
    ranking = targets.Ranking(noisy, {conv: np.arange(6) / 10, first: 1 + np.arange(40) / 100})

    def count(filters, units):
        return 36 * 27 * filters + 36 * filters * units + 10 * units

    full = count(6, 40)
    assert ranking.macs(0) == full
    for target in np.linspace(1.1, 8, 40):
        alive = ranking.at(full / target)
        filters, units = (int(alive[name].sum()) for name in (conv, first))
        assert alive[conv][-filters:].all() and alive[first][-units:].all()
        assert full / count(filters, units) == pytest.approx(target, rel=0.05)
    position = ranking.nearest(full / 1.35)
    assert abs(ranking.macs(position) * 1.35 / full - 1) > 0.06


class Recorder(keras.callbacks.Callback):
    """Records which units are removed at the end of each epoch; may end the fit after one."""

    def __init__(self, last=None):
        super().__init__()
        self.removed, self.macs, self.last = [], [], last

    def on_epoch_end(self, epoch, logs=None):
        self.removed.append({layer.name: targets.is_removed(layer) for layer in fit.noise_layers(self.model)})
        self.macs.append(logs["macs"])
        self.model.stop_training = epoch == self.last


def with_noise_towards(target, callbacks):
    x, y = digits()
    keras.utils.set_random_seed(0)
    noisy = sbp.insert(dense(), 1 / len(x), threshold=0.0)
    noisy.compile(sbp.optimizer(keras.optimizers.Adam(1e-3), keras.optimizers.Adam(0.02)), SPARSE, jit_compile=False)
    noisy.fit(x, y, 64, 10, verbose=0, shuffle=False, callbacks=[targets.TargetMACs(target), *callbacks])
    return noisy


@pytest.mark.slow
def test_units_are_removed_along_the_path_and_stay_removed():
    full = MACS
    recorder = Recorder()
    noisy = with_noise_towards(full / 8, [recorder])
    for earlier, later in zip(recorder.removed, recorder.removed[1:]):
        assert all((later[name] >= earlier[name]).all() for name in later)
    # From a tenth to seven tenths of the training, linear in the logarithm.
    path = [8 ** np.clip((progress - 0.1) / 0.6, 0, 1) for progress in np.arange(1, 11) / 10]
    assert [full / count for count in recorder.macs] == pytest.approx(path, rel=0.06)
    # A removed unit adds nothing, and a larger network takes back those that were removed last.
    for layer in fit.noise_layers(noisy):
        assert np.asarray(layer.multiplier())[targets.is_removed(layer)] == pytest.approx(0, abs=1e-6)
    alive = targets.Ranking(noisy).at(full / 2)
    halfway = next(removed for removed, count in zip(recorder.removed, recorder.macs) if count < full / 2.2)
    assert all((alive[name] >= ~halfway[name]).all() for name in alive)
    whole = compact.trainable(noisy, {name: np.ones_like(mask) for name, mask in alive.items()})
    factors = [layer.factor for layer in whole.layers if isinstance(layer, compact.Fixed)]
    assert all(0.01 < np.asarray(factor).min() and np.asarray(factor).max() < 1.05 for factor in factors)


@pytest.mark.slow
def test_a_training_that_is_continued_removes_the_same_units(tmp_path):
    full = MACS
    whole = with_noise_towards(full / 4, [])
    with_noise_towards(full / 4, [Recorder(last=4), sbp.Checkpoint(tmp_path)])
    continued = with_noise_towards(full / 4, [sbp.Checkpoint(tmp_path)])
    assert all(np.array_equal(one, other) for one, other in zip(whole.get_weights(), continued.get_weights()))


@pytest.mark.slow
def test_batch_normalization_forgets_statistics_from_before_the_training():
    """Whatever its momentum, which is the same afterwards."""
    x, y = digits()
    inputs = keras.Input((64,))
    hidden = layers.BatchNormalization(momentum=0.9999)(layers.Dense(32)(inputs))
    model = keras.Model(inputs, layers.Dense(10)(layers.ReLU()(hidden)))
    norm = model.layers[2]
    model.compile(loss=SPARSE)
    for _ in range(3):
        norm.moving_mean.assign(norm.moving_mean + 100)  # of another network
    _, report = sbp.prune(model, (x, y), 1.5, epochs=8, finetune_epochs=2, verbose=0)
    assert report.after.score > 85 and norm.momentum == 0.9999


def transformer():
    inputs = keras.Input((8, 8))
    hidden = layers.Dense(24)(inputs)
    normed = layers.LayerNormalization()(hidden)
    hidden = layers.Add()([hidden, layers.MultiHeadAttention(4, 6)(normed, normed)])
    normed = layers.LayerNormalization()(hidden)
    hidden = layers.Add()([hidden, layers.Dense(24)(layers.Dense(48, activation="gelu")(normed))])
    return keras.Model(inputs, layers.Dense(10)(layers.GRU(16)(hidden)))


@pytest.mark.slow
def test_the_smaller_network_has_the_weights_that_were_trained_and_the_macs_that_were_counted():
    """Also where units are normalized, or are those of attention and recurrent layers."""
    rng = np.random.default_rng(0)
    noisy = sbp.insert(transformer(), 1e-3, threshold=0.0)
    for layer in fit.noise_layers(noisy):
        layer.mu.assign(rng.uniform(-4, 0, layer.mu.shape))
        layer.log_sigma.assign(rng.uniform(-3, 1, layer.mu.shape))
    full = targets.full_macs(noisy)
    alive = targets.Ranking(noisy).at(full / 3)
    trained = compact.trainable(noisy, alive)
    for weight in trained.trainable_variables:  # as a training would change them
        weight.assign(weight + 0.05 * rng.normal(size=weight.shape))
    smaller = compact.shrink(noisy, alive, trained)
    x = rng.normal(size=(16, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(smaller(x), trained(x), atol=1e-5 * np.abs(trained(x)).max())
    assert sbp.multiply_adds(smaller) == targets.macs(noisy, alive) == pytest.approx(full / 3, rel=0.05)
    assert all(type(layer).__module__.startswith("keras.") for layer in smaller.layers)


def test_a_removed_unit_is_taken_back_with_the_mean_that_its_noise_had():
    noisy = sbp.insert(dense(), 1.0)
    noise = fit.noise_layers(noisy)
    for layer in noise:
        layer.mu.assign(np.linspace(-3, 0, layer.mu.shape[0]))
        layer.log_sigma.assign(np.linspace(0.5, -3, layer.mu.shape[0]))
    # Of the log-normal distribution, truncated to exp(-20) to 1, by 200,000 steps of the midpoint rule.
    log_theta = (np.arange(200_000) + 0.5) / 200_000 * -20
    expected = []
    for layer in noise:
        mu, sigma = np.asarray(layer.mu)[:, None], np.exp(np.asarray(layer.log_sigma))[:, None]
        weight = np.exp(-0.5 * ((log_theta - mu) / sigma) ** 2)
        expected.append((weight * np.exp(log_theta)).sum(1) / weight.sum(1))
    remover = targets.TargetMACs(MACS / 4)
    remover.set_model(noisy)
    remover.set_params({"epochs": 1, "steps": 20})
    remover.on_train_begin()
    remover.on_epoch_begin(0)
    for step in range(20):
        remover.on_train_batch_end(step)
    whole = compact.trainable(noisy, {layer.name: np.ones(layer.mu.shape[0], bool) for layer in noise})
    factors = [layer.factor for layer in whole.layers if isinstance(layer, compact.Fixed)]
    for factor, layer, theta in zip(factors, noise, expected, strict=True):
        assert targets.is_removed(layer).sum() > 5
        np.testing.assert_allclose(factor, layer.scale * theta, rtol=0, atol=1e-5)


def test_units_of_the_same_ratio_are_removed_by_bisection(monkeypatch):
    """As those of a network that has not been trained: no threshold is between them."""
    inputs = keras.Input((8,))
    hidden = layers.Dense(300, activation="relu")(layers.Dense(500, activation="relu")(inputs))
    noisy, counted, count = sbp.insert(keras.Model(inputs, layers.Dense(10)(hidden)), 1e-3), [], targets.macs
    ranking = targets.Ranking(noisy)
    full = ranking.macs(0)
    monkeypatch.setattr(targets, "macs", lambda *arguments: counted.append(arguments) or count(*arguments))
    alive = ranking.at(full / 2)
    assert full / count(noisy, alive) == pytest.approx(2, rel=0.03)
    assert len(counted) < 40
