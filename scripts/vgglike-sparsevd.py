"""SparseVD for VGG-like on CIFAR-10: noise on every weight, then fine-tuning, live units starting from the Original.

Error: 21.40% with noise, 6.25% fine-tuned (seed 0; paper 7.20, not fine-tuned) with 2.30x fewer MACs (paper 2.27).

    python scripts/vgglike-sparsevd.py --schedule=short --precision=bfloat16    # 87 minutes on two cores

Trials: docs/trials.md#vgglike-sparsevd
"""

from keras_sbp import layers
from keras_sbp.lazy import keras
from keras_sbp.nets import NETWORKS
from keras_sbp.utils import experiment
from keras_sbp.utils.io.command_line import UserError
from keras_sbp.utils.io.preprocessing import CropAndFlip
from keras_sbp.utils.methods import Retraining, SparseVD
from keras_sbp.utils.methods.sparse_vd import initialize, rewind

PAPER = {
    "dataset": "cifar10",
    "epochs": 300,
    "batch_size": 100,
    "learning_rate": 1e-5,
    "noise_learning_rate": 1e-4,
    "decay_start": 250 / 300,
    "finetune_learning_rate": 0.05,
    "finetune_weight_decay": 5e-4,
    "finetune_decay_start": 250 / 300,
}
SHORT = PAPER | {
    "epochs": 3,
    "batch_size": 125,
    "learning_rate": 2e-2,
    "noise_learning_rate": 3e-3,
    "kl_warmup": 0.2,
    "warmup": 0.2,
    "decay_start": 0.2,
    "label_smoothing": 0.1,
    "cutout": 8,
    "finetune_epochs": 18,
    "finetune_warmup": 0.2,
    "finetune_decay_start": 0.2,
    "finetune_label_smoothing": 0.1,
}


def train(run):
    if run.method.shrink_every:
        raise UserError("--shrink_every removes units that rewinding finds by their index: leave it out")
    start = experiment.find_or_train(run, "vgglike")
    model = run.build(dense=layers.sparse_vd.Dense, conv=layers.sparse_vd.Conv2D)
    original = run.build(norm=keras.layers.Identity)
    experiment.load_weights(run, original, start)
    original = run.insert_batch_norm(original)
    initialize(model, original)
    model = run.train(model)
    rewind(model, original)
    return run.finish(model, run.finetune(original), half=True)


if __name__ == "__main__":
    experiment.main(
        train,
        NETWORKS["VGG-like"],
        "SparseVD",
        SparseVD,
        CropAndFlip,
        Retraining,
        default_schedule="paper",
        paper=PAPER,
        short=SHORT,
    )
