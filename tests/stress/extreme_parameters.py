"""Training from extreme parameters: all losses and weights stay finite.

    python -m tests.stress.extreme_parameters --starts 400

A small convolutional network and Lenet-fc: mu and log sigma start anywhere within their bounds, at the bounds, or where
every unit is dead; learning rates go up to 1, the scale of the KL divergence from 0 to 1000.
"""

import argparse
import functools
import itertools
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from keras_sbp.layers.sbp import PARAMETER_BOUNDS, SBP
from keras_sbp.nets import lenet_fc
from keras_sbp.utils import pruning
from keras_sbp.utils.io import data, preprocessing
from tests.support.steps import steps
from tests.test_training import kl, network

EPOCHS = 3
BUILDERS = (network, functools.partial(lenet_fc.lenet_fc, unit=SBP))
RATES = ((1.0, 1.0), (1e-3, 1.0), (1.0, 1e-3), (1e-3, 5e-2))  # of the weights and of the noise


def initial_noise(generator, kind, units):
    """Initial mu and log sigma, (units,) each."""
    if kind == "bounds":
        return generator.choice(PARAMETER_BOUNDS, units), generator.choice(PARAMETER_BOUNDS, units)
    low, high = PARAMETER_BOUNDS
    # With log sigma >= 4, log theta is nearly uniform: E theta is 1/20, its standard deviation 0.15.
    return generator.uniform(low, high, units), generator.uniform(4 if kind == "dead" else low, high, units)


def measure(starts, rates=RATES):
    """Train from this many starts; returns the numbers of steps, and of losses, weights and outputs not finite."""
    digits = data.load("digits", "", "train")
    generator, scale = np.random.default_rng(0), tf.Variable(0.0)
    num_steps = losses = weights = outputs = 0
    bar = tqdm(total=starts, unit="start")
    settings = list(itertools.product(BUILDERS, rates))
    for index, (build, (weight_rate, noise_rate)) in enumerate(settings):
        model = build()
        step = steps(
            digits,
            epochs=EPOCHS,
            rate=lambda v, rates=(weight_rate, noise_rate): rates[v.name in ("mu", "log_sigma")],
            kl=lambda model, progress: scale * kl(model),
        )(model)
        initial = step.state()
        for number in range(index, starts, len(settings)):
            step.restore(initial)
            kind = ("anywhere", "bounds", "dead")[number // len(settings) % 3]
            for layer in [layer for layer in model.layers if isinstance(layer, SBP)]:
                values = initial_noise(generator, kind, layer.mu.shape[0])
                for variable, value in zip((layer.mu, layer.log_sigma), values):
                    variable.assign(value)
            scale.assign(generator.choice([0, 1, 1000, 10 ** generator.uniform(-3, 3)]))
            for epoch in range(EPOCHS):
                sums, _ = step.run(epoch, 0, step.steps_per_epoch)
                losses += not np.isfinite(sums).all()
                num_steps += step.steps_per_epoch
            weights += sum(np.count_nonzero(~np.isfinite(array)) for array in step.state().values())
            bar.update()
        outputs += np.count_nonzero(~np.isfinite(pruning.shrink(model)(preprocessing.scale(digits.images[:100]))))
    bar.close()
    return num_steps, losses, weights, outputs


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=400)
    options = parser.parse_args()
    num_steps, losses, weights, outputs = measure(options.starts)
    found = f"{losses} losses, {weights} weights, {outputs} outputs"
    print(f"{options.starts} extreme starts, {num_steps} steps; not finite: {found}")
    sys.exit(bool(losses or weights or outputs))


if __name__ == "__main__":
    main()
