"""The layer of Structured Bayesian Pruning: log-normal noise that multiplies the units of a network.

K. Neklyudov, D. Molchanov, A. Ashukha, D. Vetrov: "Structured Bayesian Pruning via Log-Normal Multiplicative Noise",
NIPS 2017.
"""

import contextlib
import contextvars
import itertools
import math
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import keras
from keras import ops

from keras_sbp import keras_private
from keras_sbp.layers import truncated_log_normal
from keras_sbp.layers.normal import Tensor

# mu and log sigma are clipped to this interval, on which the distribution is computed exactly.
PARAMETER_BOUNDS = (-20.0, 5.0)
CRITERIA = ("snr", "evidence")
# The log evidence, in nats, by which a unit has to improve the model to stay. A unit without effect is worth 0 once its
# posterior is the prior, and slightly more before that, because of PARAMETER_BOUNDS and of finite training. A factor
# below e is "not worth more than a bare mention" (Kass and Raftery, "Bayes Factors", 1995).
MIN_EVIDENCE_NATS = 1.0


@keras.saving.register_keras_serializable(package="sbp")
class SBP(keras.layers.Layer):
    """Multiplies each unit, that is each index of the last axis, by its own noise theta > 0.

    The prior of theta is log-uniform and its approximate posterior log-normal, both truncated to log theta in
    [-20, 0]; mu and log sigma of the posterior are trained (`layers.truncated_log_normal`). In training, theta is a
    sample, one per unit and forward pass, shared by the examples and positions of a batch. At test time it is E theta,
    or 0 for a unit that is not among the `live_units()`: such a unit can be removed from the network.

    Inputs and outputs: (batch, ..., units), of any rank from 2 up. mu and log_sigma: (units,), float32 also under mixed
    precision, where only the product is rounded.

    Example:

        inputs = keras.Input((784,))
        x = SBP(kl_weight=1 / 60_000)(inputs)  # 60,000 training examples
        x = keras.layers.Dense(300, activation="relu")(x)
        x = SBP(kl_weight=1 / 60_000)(x)
        model = keras.Model(inputs, keras.layers.Dense(10)(x))
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.fit(images, labels, batch_size=128, epochs=20)
        smaller = keras_sbp.shrink(model)

    A layer that is called several times in a network is the same noise at all its call sites: its calls in one forward
    pass share a sample, and its KL divergence counts once.

    Args:
        kl_weight: adds this weight times the KL divergence of all units to the model's losses. With a loss averaged
            over the batch, the evidence lower bound requires 1 / N for N training examples. If positive,
            `layer.kl_weight.assign(...)` changes it later. 0: nothing is added, the training loop adds the term.
        threshold: the signal-to-noise ratio that a live unit exceeds (1 in the paper).
        log_sigma: initial value of log sigma, from -20 to 5 (-5 in the paper). mu starts at 0.
        seed: of the noise. None: a random one.
        scale: multiplies theta, > 0. With 1 / E theta of the initial posterior, a trained network starts unchanged.
        criterion: "snr": units above the threshold are live. "evidence": units are live with which the model's evidence
            is more than e times the evidence without them (BMRS, see `truncated_log_normal.log_evidence_ratio`).
    Raises:
        ValueError: the criterion is unknown, another argument is outside its bounds, or the inputs have no last axis of
            a known size.
    """

    def __init__(
        self,
        kl_weight: float = 0.0,
        threshold: float = 1.0,
        log_sigma: float = -5.0,
        seed: int | None = None,
        scale: float = 1.0,
        criterion: str = "snr",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.supports_masking = True
        if criterion not in CRITERIA:
            raise ValueError(f"criterion={criterion!r} must be one of {', '.join(CRITERIA)}")
        if not 0 <= kl_weight < math.inf:
            raise ValueError(
                f"kl_weight={kl_weight}: give a number from 0, such as 1 / the number of training examples"
            )
        if not 0 < scale < math.inf:
            raise ValueError(f"scale={scale}: give a number above 0")
        low, high = PARAMETER_BOUNDS
        if not low <= log_sigma <= high:
            raise ValueError(f"log_sigma={log_sigma}: give a number from {low:g} to {high:g}")
        self.initial_kl_weight = kl_weight
        self.threshold = threshold
        self.criterion = criterion
        self.initial_log_sigma = log_sigma
        self.seed = seed
        self.scale = scale
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if len(input_shape) < 2 or input_shape[-1] is None:
            raise ValueError(
                f"{self.name} has inputs of {input_shape}: it needs (batch, ..., units), with a known number of units"
            )
        # With the 8 bits of bfloat16's mantissa, log sigma would not move.
        dtype = "float64" if self.variable_dtype == "float64" else "float32"

        def add_parameter(name, value, **settings):
            initializer = keras.initializers.Constant(value)
            return self.add_weight(name=name, initializer=initializer, dtype=dtype, autocast=False, **settings)

        if self.initial_kl_weight:
            self.kl_weight = add_parameter("kl_weight", self.initial_kl_weight, shape=(), trainable=False)
        # A regularizer counts once, however often the layer is called.
        regularizer = self._weighted_kl if self.initial_kl_weight else None
        units = {"shape": input_shape[-1:], "constraint": _clip}
        self.mu = add_parameter("mu", 0.0, regularizer=regularizer, **units)
        self.log_sigma = add_parameter("log_sigma", self.initial_log_sigma, **units)

    def _weighted_kl(self, mu):
        # Keras adds losses in one dtype, whatever that of the layers.
        dtype = "float64" if keras.config.floatx() == "float64" else "float32"
        return ops.cast(self.kl_weight.value * ops.sum(self.kl_divergence()), dtype)

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        theta = self.scale * self.sample() if training else _of_pass(multipliers, self)
        return inputs * ops.cast(theta, inputs.dtype)

    def sample(self) -> Tensor:
        """The sample of theta for the current forward pass, before `scale`: (units,). See `sampling`."""
        if (given := _given.get().get(self)) is not None:
            return given
        return _of_pass(_draw, self)

    def multiplier(self) -> Tensor:
        """What units are multiplied by at test time: (units,), E theta for live units and exactly 0 for the others."""
        theta = self.scale * truncated_log_normal.mean(self.mu.value, self.log_sigma.value)
        return ops.where(self.live_units(), theta, ops.zeros_like(theta))

    def live_units(self) -> Tensor:
        """Which units the criterion keeps: (units,) bool."""
        if self.criterion == "evidence":
            ratio = truncated_log_normal.log_evidence_ratio(self.mu.value, self.log_sigma.value)
            return ratio < -MIN_EVIDENCE_NATS
        return self.snr() > self.threshold

    def snr(self) -> Tensor:
        """The signal-to-noise ratio E theta / sqrt(Var theta) of each unit: (units,)."""
        return truncated_log_normal.snr(self.mu.value, self.log_sigma.value)

    def kl_divergence(self) -> Tensor:
        """KL(q || p) of each unit's theta, in nats: (units,)."""
        return truncated_log_normal.kl_divergence(self.mu.value, self.log_sigma.value)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        own = {"kl_weight": self.initial_kl_weight, "threshold": self.threshold, "log_sigma": self.initial_log_sigma}
        return {**super().get_config(), **own, "seed": self.seed, "scale": self.scale, "criterion": self.criterion}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        # Older files say "rule".
        return super().from_config({"criterion" if key == "rule" else key: value for key, value in config.items()})


def parameters(layers: Sequence[SBP]) -> tuple[Tensor, Tensor]:
    """mu and log sigma of the units of all these layers, concatenated: (units,) float32 each."""
    mu, log_sigma = ([getattr(layer, name).value for layer in layers] for name in ("mu", "log_sigma"))
    return ops.concatenate(mu), ops.concatenate(log_sigma)


def multipliers(layers: Iterable[keras.Layer]) -> dict[keras.Layer, Tensor]:
    """{layer: `layer.multiplier()`} of noise layers of any kind; of all SBP layers by one call."""
    # Not of subclasses, which may decide otherwise what is live.
    is_plain = {layer: type(layer) is SBP and layer.criterion == "snr" for layer in layers}
    if plain := [layer for layer, yes in is_plain.items() if yes]:
        of_all = parameters(plain)
        mean, snr = (_split(plain, f(*of_all)) for f in (truncated_log_normal.mean, truncated_log_normal.snr))

    def multiplier(layer):
        theta = layer.scale * mean[layer]
        return ops.where(snr[layer] > layer.threshold, theta, ops.zeros_like(theta))

    return {layer: multiplier(layer) if yes else layer.multiplier() for layer, yes in is_plain.items()}


# What `sampling` has drawn: {layer: theta}, on the thread that entered it.
_given: contextvars.ContextVar[Mapping[SBP, Tensor]] = contextvars.ContextVar("_given", default={})
# What layers have computed in a pass: {forward pass: [((function, trace), {layer: value})]}, gone with the pass.
_computed: weakref.WeakKeyDictionary[Any, list] = weakref.WeakKeyDictionary()


def _of_pass(function, layer):
    """function(layers)[layer], by one call for all SBP layers in the graph whose forward pass is in progress."""
    if (forward_pass := keras_private.forward_pass()) is None:
        return function([layer])[layer]
    # What is traced in a branch or a loop cannot be used outside.
    key, computed = (function, keras_private.trace()), _computed.setdefault(forward_pass, [])
    for known, values in computed:
        if known == key and layer in values:
            return values[layer]
    layers = [other for other in keras_private.graph_layers(forward_pass) if isinstance(other, SBP)]
    values = function(layers if layer in layers else [layer])
    # Only samples must stay the same in a pass: elsewhere, a layer may be called again with other weights.
    if layer in layers or function is _draw:
        computed.append((key, values))
    return values[layer]


@contextlib.contextmanager
def sampling(layers: Sequence[SBP]) -> Iterator[dict[SBP, Tensor]]:
    """A context in which each of these layers has one sample of theta, for all its calls on this thread.

    The samples of all layers are computed at once, with fewer and larger operations. Without this context, a layer
    draws a sample in its first call in a forward pass (of the outermost model, on each tower), for all its calls there;
    if the outermost model is functional or Sequential, not in `fit` on JAX, for all layers in its graph at once.

    Yields:
        {layer: theta, (units,) float32}: what the layers multiply by, before `scale`. Entries may be replaced.
    """
    samples = {**_given.get(), **_draw(layers)}
    token = _given.set(samples)
    try:
        yield samples
    finally:
        _given.reset(token)


def _draw(layers):
    """{layer: a sample of theta}, by a single call of the quantile."""
    if not layers:
        return {}
    u = [keras.random.uniform(layer.mu.shape, seed=layer.seed_generator, dtype="float32") for layer in layers]
    # The center of one of 2^23 equal cells, never an end of the interval. PyTorch has twice as many cells.
    u = ops.minimum(ops.concatenate(u) + 2.0**-24, 1 - 2.0**-24)
    theta = ops.exp(truncated_log_normal.log_quantile(u, *parameters(layers)))
    return _split(layers, theta)


def _split(layers, values):
    """{layer: its part}, of values of the units of all these layers."""
    ends = itertools.accumulate((layer.mu.shape[0] for layer in layers), initial=0)
    return {layer: values[start:end] for layer, (start, end) in zip(layers, itertools.pairwise(ends))}


def _clip(parameter):
    return ops.clip(parameter, *PARAMETER_BOUNDS)
