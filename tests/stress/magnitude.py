"""Pruning the LSTM and the ViT by the magnitude of their weights, beside StructuredBP: a row to compare with.

python -m tests.stress.magnitude --network=LSTM --seed=0 --directory=DIR

From the published Original of the seed, units of the same groups are removed at once, down to the MACs of the published
StructuredBP run: those whose weights have the smallest L2 norm, relative to the mean of their group. What is left is
trained for as many epochs as StructuredBP in all, with noise and without, at the rates of its fine-tuning.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from keras_sbp.nets import NETWORKS, vit
from keras_sbp.utils import pruning
from keras_sbp.utils.experiment import Experiment, Settings
from keras_sbp.utils.io import report
from keras_sbp.utils.io.preprocessing import CropAndFlip, Shift
from keras_sbp.utils.methods import Finetuning, Original
from keras_sbp.utils.tool import compact, targets

PUBLISHED = Path(__file__).parents[2] / "checkpoints" / "published"


def weights_of_units(model):
    """{noise layer's name: (units, weights)}: what computes each unit and, in attention, what reads it, too."""
    of = {weight.path: np.asarray(weight) for weight in model.weights}
    if model.name == "lstm":
        gates = np.concatenate([of["lstm/lstm_cell/kernel"], of["lstm/lstm_cell/recurrent_kernel"]])
        return {"lstm_noise": gates.reshape(len(gates), 4, -1).transpose(2, 0, 1)}
    conv, stream = of["conv/kernel"], [of["patches/kernel"]]
    found = {"conv_noise": np.moveaxis(conv, -1, 0)}
    for block in range(1, vit.BLOCKS + 1):
        names = ("query", "key", "value", "attention_output")
        query, key, value, output = (of[f"block{block}_attention/{name}/kernel"] for name in names)
        # Those of a head; those of a dimension of a head, of which the noise has one after the other.
        inputs = [np.moveaxis(kernel, 0, -1) for kernel in (query, key, value)]
        found[f"block{block}_attention_heads_noise"] = np.stack([*inputs, output], 1)
        found[f"block{block}_attention_query_key_noise"] = np.stack(inputs[:2], 2).reshape(-1, 2, len(query))
        found[f"block{block}_attention_values_noise"] = np.stack([inputs[2], output], 2).reshape(-1, 2, len(query))
        found[f"block{block}_mlp1_noise"] = of[f"block{block}_mlp1/kernel"].T
        stream += [output, of[f"block{block}_mlp2/kernel"]]
    return found | {
        "patches_noise": np.concatenate([np.reshape(kernel, (-1, kernel.shape[-1])) for kernel in stream]).T
    }


def magnitudes(model):
    """{noise layer's name: (units,)} relative to the mean of the layer."""
    norms = {name: np.sqrt((w.reshape(len(w), -1) ** 2).sum(1)) for name, w in weights_of_units(model).items()}
    return {name: norm / norm.mean() for name, norm in norms.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=["LSTM", "ViT"], required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--directory", required=True)
    options = parser.parse_args()
    network, end = NETWORKS[options.network], f"-seed{options.seed}" if options.seed else ""
    sbp = report.read(PUBLISHED / f"{network.script}-sbp{end}")
    given, augment = sbp["settings"], Shift(shift=sbp["settings"].get("shift", 0))
    model = keras.models.load_model(PUBLISHED / f"{network.script}{end}" / "network.keras")
    settings = Settings(
        dataset=sbp["dataset"],
        seed=options.seed,
        batch_size=given["batch_size"],
        precision=given["precision"],
        checkpoints_dir=options.directory,
    )
    finetuning = Finetuning(
        epochs=given["epochs"] + given["finetune_epochs"],
        learning_rate=given["finetune_learning_rate"],
        decay_start=given["finetune_decay_start"],
    )
    if options.network == "ViT":
        augment = CropAndFlip()
    with Experiment(network, "magnitude", settings, Original(), augment=augment, finetuning=finetuning) as run:
        noisy = pruning.insert(model)
        kept = targets.Ranking(noisy, magnitudes(model)).at(sbp["multiply_adds"])
        smaller = pruning.shrink(compact.trainable(noisy, kept))
        result = run.finish(smaller, run.finetune(smaller))
    before, error = result["error_before_finetuning"], result["error"]
    print(f"seed {options.seed}: {before} -> {error} %, {result['flops_speedup']:.2f}x")
    print(f"units {result['units']}; StructuredBP: {sbp['error']} %, {sbp['flops_speedup']:.2f}x, units {sbp['units']}")


if __name__ == "__main__":
    main()
