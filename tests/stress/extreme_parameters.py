"""Training from extreme starts: no loss and no weight stops being finite.

    python -m tests.stress.extreme_parameters --starts 400

A small convolutional network and Lenet-fc: mu and log sigma start anywhere in their box, in its corners, or where every
unit is dead; rates go up to 1, the scale of the KL divergence from 0 to 1000.
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

from keras_sbp.layers.sbp import BOX, SBP
from keras_sbp.nets import lenet_fc
from keras_sbp.utils import pruning
from keras_sbp.utils.io import data, preprocessing
from tests.support import steps as made
from tests.test_training import kl, network

EPOCHS = 3
NETWORKS = (network, functools.partial(lenet_fc.lenet_fc, unit=SBP))
RATES = ((1.0, 1.0), (1e-3, 1.0), (1.0, 1e-3), (1e-3, 5e-2))  # of the weights and of the noise


def noise(generator, kind, units):
    """Where mu and log sigma of so many units start."""
    if kind == "corners":
        return generator.choice(BOX, units), generator.choice(BOX, units)
    # So wide, log theta is nearly uniform: E theta is 1/20, its deviation 0.15.
    return generator.uniform(*BOX, units), generator.uniform(4 if kind == "dead" else BOX[0], BOX[1], units)


def measure(starts, rates=RATES):
    """Train from so many starts: (steps taken, losses that were not finite, weights that were not, rows of outputs)."""
    digits = data.load("digits", "", "train")
    generator, scale = np.random.default_rng(0), tf.Variable(0.0)
    steps = losses = weights = outputs = 0
    bar = tqdm(total=starts, unit="start")
    places = list(itertools.product(NETWORKS, rates))
    for place, (build, (weight_rate, noise_rate)) in enumerate(places):
        model = build()
        step = made.steps(
            digits,
            epochs=EPOCHS,
            rate=lambda v, rates=(weight_rate, noise_rate): rates[v.name in ("mu", "log_sigma")],
            kl=lambda model, done: scale * kl(model),
        )(model)
        start = step.state()
        for number in range(place, starts, len(places)):
            step.restore(start)
            kind = ("anywhere", "corners", "dead")[number // len(places) % 3]
            for layer in [layer for layer in model.layers if isinstance(layer, SBP)]:
                for variable, value in zip((layer.mu, layer.log_sigma), noise(generator, kind, layer.mu.shape[0])):
                    variable.assign(value)
            scale.assign(generator.choice([0, 1, 1000, 10 ** generator.uniform(-3, 3)]))
            for epoch in range(EPOCHS):
                sums, _ = step.run(epoch, 0, step.steps)
                losses += not np.isfinite(sums).all()
                steps += step.steps
            weights += sum(np.count_nonzero(~np.isfinite(array)) for array in step.state().values())
            bar.update()
        outputs += np.count_nonzero(~np.isfinite(pruning.shrink(model)(preprocessing.scale(digits.images[:100]))))
    bar.close()
    return steps, losses, weights, outputs


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=400)
    options = parser.parse_args()
    steps, losses, weights, outputs = measure(options.starts)
    found = f"{losses} losses, {weights} weights, {outputs} outputs"
    print(f"{options.starts} extreme starts, {steps} steps; not finite: {found}")
    sys.exit(bool(losses or weights or outputs))


if __name__ == "__main__":
    main()
