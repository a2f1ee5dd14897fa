"""Pictures: one look for all of them, and the curves that training left in its summaries."""

import sys
from pathlib import Path

import keras
import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from absl import flags
from matplotlib import ticker
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.util import tb_logging, tensor_util

from keras_sbp.utils.io.command_line import UserError

FLAGS = flags.FLAGS
FOLDER = Path(__file__).resolve().parents[2] / "docs" / "figures"

# Colours that the colour-blind tell apart (Okabe and Ito, 2008), and a marker each, for who prints in grey.
BLACK, ORANGE, SKY, GREEN, BLUE, VERMILION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
# One more than colours: taken in turns, no two of many lines look alike.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
METHODS = {
    "Original": (BLACK, "o"),
    "SparseVD": (ORANGE, "s"),
    "SSL": (GREEN, "^"),
    "StructuredBP": (BLUE, "D"),
    "StructuredBP, plain": (SKY, "X"),
    "StructuredBPa": (PURPLE, "v"),
    "StructuredBPc": (VERMILION, "P"),
    "Dropout": (ORANGE, "s"),
}

# It reports every file it has read to its end.
tb_logging.get_logger().setLevel("WARNING")

plt.rcParams |= {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 200,
    # The same picture is the same file.
    "svg.hashsalt": "sbp",
}


def log_scale(axes, which):
    """Make an axis ("x", "y") logarithmic, with plain numbers on it."""
    axes.set(**{f"{which}scale": "log"})
    axis = getattr(axes, f"{which}axis")
    axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(ticker.NullFormatter())


def define_folder():
    """The flag of the folder that `save` writes to."""
    flags.DEFINE_string("figures_dir", str(FOLDER), "Where pictures go.")


def save(figure, name):
    """Write a figure as NAME.png and NAME.svg into --figures_dir, and say so on stderr.

    Raises:
        UserError: they cannot be written.
    """
    path = Path(FLAGS.figures_dir) / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(f"{path}.png", metadata={"Software": None})
        figure.savefig(f"{path}.svg", metadata={"Date": None})
    except OSError as error:
        raise UserError(f"cannot write {path}.png ({error.strerror}); give another --figures_dir") from None
    plt.close(figure)
    print(f"{path}.png and .svg", file=sys.stderr)


def curves(folder):
    """What a run's summaries hold: {name: (epochs, values)}, epochs in order; {} if there are none.

    A run that was stopped and went on may have written an epoch twice: the later one counts.
    """
    if not Path(folder).is_dir():
        return {}
    events = event_accumulator.EventAccumulator(
        str(folder), {event_accumulator.TENSORS: 0}, purge_orphaned_data=False
    ).Reload()
    found = {}
    for name in events.Tags()["tensors"]:
        values = {event.step: float(tensor_util.make_ndarray(event.tensor_proto)) for event in events.Tensors(name)}
        found[name] = sorted(values), [values[epoch] for epoch in sorted(values)]
    return found


def pixel_snr(model):
    """The signal-to-noise ratio of each pixel of a Lenet-fc in training, (28, 28); NaN where it is dead.

    The network is float32 afterwards.
    """
    noise = model.get_layer("pixels_unit")
    # An image of its pixels' numbers shows which of them are left. In bfloat16 they would be rounded.
    for layer in model.layers:
        layer.dtype_policy = "float32"
    numbers = np.arange(784, dtype=np.float32).reshape(1, 28, 28, 1)
    left = np.asarray(keras.Model(model.inputs, noise.input)([numbers]))[0].astype(int)
    snr = np.full(784, np.nan)
    snr[left] = np.where(np.asarray(noise.multiplier()) != 0, noise.snr(), np.nan)
    return snr.reshape(28, 28)
