"""Fine-tuning of networks that rescale their images themselves: nothing may be lost by it.

    python -m tests.stress.rescaling

Four networks with Rescaling or Normalization for images of bytes (scikit-learn's digits), two seeds, half of the MACs.
Prints the test accuracy of the network as given, of the smaller one, and of the smaller one fine-tuned for two epochs.
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers
from tqdm import tqdm

import keras_sbp as sbp
from keras_sbp.utils.io.report import align
from tests.support.digits import digits, train

NAMES = "Rescaling(1/255), dense", "Rescaling(1/255), convolutions"
NAMES += "Rescaling(1/127.5, -1), batch norm, dropout", "Normalization, convolutions"
SEEDS = 0, 1
# Points: 3 of the 397 test examples may go either way.
TOLERANCE = 1.0


def network(name: str, x: np.ndarray) -> keras.Model:
    if "Normalization" in name:
        first = layers.Normalization()
        first.adapt(x.astype(np.float32))
    else:
        first = layers.Rescaling(1 / 127.5, -1) if "127.5" in name else layers.Rescaling(1 / 255)
    if "dense" in name:
        hidden = [layers.Flatten(), *(layers.Dense(width, activation="relu") for width in (48, 32))]
    else:
        hidden = [layers.Conv2D(width, 3, activation="relu") for width in (12, 24)] + [layers.Flatten()]
        hidden[1:1] = [layers.BatchNormalization(), layers.Dropout(0.2)] if "batch norm" in name else []
    return keras.Sequential([keras.Input((8, 8, 1)), first, *hidden, layers.Dense(10)])


def main():
    x, y = digits()
    x = (255 * x).astype(np.uint8).reshape(-1, 8, 8, 1)
    data, loss = (x[:1000], y[:1000]), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    held_out = {"validation_data": (x[1000:1400], y[1000:1400]), "test_data": (x[1400:], y[1400:])}
    rows, lost = [("Network", "seed", "as given", "smaller", "fine-tuned")], 0
    for name, seed in tqdm([(name, seed) for name in NAMES for seed in SEEDS], unit="network"):
        keras.utils.set_random_seed(seed)
        model = train(network(name, x), loss, *data)
        smaller, tuned = (
            sbp.prune(model, data, 2, finetune_epochs=count, seed=seed, verbose=0, **held_out)[1] for count in (0, 2)
        )
        lost += tuned.after.score < smaller.after.score - TOLERANCE
        scores = smaller.before.score, smaller.after.score, tuned.after.score
        rows.append((name, str(seed), *(f"{score:.1f}" for score in scores)))
    print(align(rows, "<>>>>"))
    sys.exit(lost > 0)


if __name__ == "__main__":
    main()
