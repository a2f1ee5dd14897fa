"""The flags that experiments share, and the folder of a run with them."""

from pathlib import Path

from absl import flags

from keras_sbp.utils.io import data

FLAGS = flags.FLAGS
ROOT = Path(__file__).resolve().parents[2]


def define_flags(*, dataset, epochs, batch_size, learning_rate, weight_decay):
    """The flags of every experiment, with this one's hyperparameters as their defaults."""
    flags.DEFINE_enum("dataset", dataset, data.DATASETS, "The data set; digits needs no download.")
    flags.DEFINE_integer("epochs", epochs, "Epochs of training.", lower_bound=1)
    flags.DEFINE_integer("batch_size", batch_size, "Images a step on each tower.", lower_bound=1)
    flags.DEFINE_float(
        "learning_rate",
        learning_rate,
        "The rate for the weights. It falls linearly to 0 from half of the training on; VGG-like and ResNet-20 have "
        "courses of their own.",
        lower_bound=0,
    )
    flags.DEFINE_float(
        "weight_decay",
        weight_decay,
        "L2 decay: half of it times the sum of the kernels' squares is added to the loss of every image.",
        0,
    )
    flags.DEFINE_integer(
        "seed", 0, "Random seed of the initial weights, the order of the images and the noise.", 0, 2**31 - 1
    )
    flags.DEFINE_integer("num_gpus", None, "Towers, one a GPU; 0: the CPU. Default: the first GPU, else the CPU.", 0)
    flags.DEFINE_enum("precision", "float32", ["float32", "bfloat16"], "bfloat16 is Keras's mixed_bfloat16.")
    flags.DEFINE_bool(
        "validate", False, "Hold out the last 10,000 training images and report on them; the test set is not read."
    )
    flags.DEFINE_string("checkpoint", None, "A run's folder (or a .keras file) whose weights to start from.")
    data.define_folder()
    flags.DEFINE_bool(
        "export", False, "Write the smaller network as saved_model/, network.tflite and network-int8.tflite, too."
    )
    flags.DEFINE_bool(
        "evaluate", False, "Do not train: measure the published network's error and speed on this machine."
    )
    flags.DEFINE_string("checkpoints_dir", None, "This run's folder. Default: checkpoints/ and the script's name.")
    flags.DEFINE_string("summaries_dir", None, "Where TensorBoard's summaries go. Default: the run's folder.")


def define_finetune_flags(epochs=0, learning_rate=1e-4):
    """The flags of fine-tuning what is left when the units are gone."""
    flags.DEFINE_integer(
        "finetune_epochs",
        epochs,
        "Epochs of further training of the smaller network, without noise; the row shows both errors.",
        0,
    )
    flags.DEFINE_float(
        "finetune_learning_rate",
        learning_rate,
        "The learning rate of that training, with the course of --learning_rate.",
        lower_bound=1e-12,
    )


def run_folder(script, within="checkpoints"):
    """checkpoints/<script>, and what makes this run another than the script's own: data set, schedule, width, shift,
    seed, held-out images."""
    parts = [script]
    if FLAGS.dataset != FLAGS["dataset"].default:
        parts.append(FLAGS.dataset)
    if "schedule" in FLAGS and FLAGS.schedule != FLAGS["schedule"].default:
        parts.append(FLAGS.schedule)
    if "width" in FLAGS and FLAGS.width != 1:
        parts.append(f"width{FLAGS.width:g}")
    if "shift" in FLAGS and FLAGS.shift:
        parts.append(f"shift{FLAGS.shift}")
    if FLAGS.seed:
        parts.append(f"seed{FLAGS.seed}")
    if FLAGS.validate:
        parts.append("validate")
    return str(ROOT / within / "-".join(parts))


def original_folder(script, folder):
    """The folder of the Original that a run in a folder makes for itself: beside it, if it has a --checkpoints_dir."""
    return f"{folder}-{script}" if FLAGS.checkpoints_dir else run_folder(script)


def published_folder(script):
    """Where git holds the network and the result of such a run, if it does."""
    return run_folder(script, "checkpoints/published")


def as_given(name, value):
    """A flag as the command line has it."""
    return f"no --{name}" if value is None else f"--{name}={','.join(value) if isinstance(value, list) else value}"
