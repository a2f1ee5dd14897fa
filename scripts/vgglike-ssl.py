"""SSL for VGG-like on CIFAR-10: a group lasso on input channels, from the Original's weights, then fine-tuning.

Error: 89.95% after the lasso, 6.62% fine-tuned (seed 0) with 2.52x fewer MACs. The paper has no such row.

    python scripts/vgglike-ssl.py --schedule=short --precision=bfloat16    # 49 minutes on two cores of a Xeon with AMX

Trials: docs/trials.md#vgglike-ssl
"""

from keras_sbp.lazy import keras
from keras_sbp.nets import NETWORKS
from keras_sbp.utils import experiment
from keras_sbp.utils.io.preprocessing import CropAndFlip
from keras_sbp.utils.methods import NormalizedSSL, Retraining

PAPER = {
    "dataset": "cifar10",
    "epochs": 300,
    "batch_size": 100,
    "learning_rate": 0.05,
    "weight_decay": 5e-4,
    "lasso": 0.012,
    "decay_start": 250 / 300,
    "shrink_every": 1,
    "finetune_learning_rate": 0.1,
    "finetune_weight_decay": 5e-4,
    "finetune_decay_start": 250 / 300,
}
SHORT = PAPER | {
    "epochs": 6,
    "batch_size": 125,
    "lasso": 0.45,
    "warmup": 0.2,
    "decay_start": 0.2,
    "label_smoothing": 0.1,
    "cutout": 8,
    "finetune_epochs": 30,
    "finetune_warmup": 0.2,
    "finetune_decay_start": 0.2,
    "finetune_label_smoothing": 0.1,
}


def train(run):
    start = experiment.find_or_train(run, "vgglike")
    model = run.build(norm=keras.layers.Identity)
    experiment.load_weights(run, model, start)
    model = run.train(run.insert_batch_norm(model))
    return run.finish(model, run.finetune(model), half=True)


if __name__ == "__main__":
    experiment.main(
        train,
        NETWORKS["VGG-like"],
        "SSL",
        NormalizedSSL,
        CropAndFlip,
        Retraining,
        default_schedule="paper",
        paper=PAPER,
        short=SHORT,
    )
