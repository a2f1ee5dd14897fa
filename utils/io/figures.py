"""Figures: one style for all of them, and the curves in a run's summaries."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import keras
import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import ticker
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.util import tb_logging, tensor_util

from keras_sbp.utils.io.command_line import UserError

# Colors that the color-blind can tell apart (Okabe and Ito, 2008), with a marker each, for printing in gray.
BLACK, ORANGE, SKY, GREEN, BLUE, VERMILION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
COLORS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
# One more than colors: cycling through both, no two of many lines look alike.
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

# It logs every file that it has read.
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
    # The same figure is the same file.
    "svg.hashsalt": "sbp",
}


def use_log_scale(axes: plt.Axes, which: str) -> None:
    """Make an axis ("x", "y") logarithmic, with plain numbers as labels."""
    axes.set(**{f"{which}scale": "log"})
    axis = getattr(axes, f"{which}axis")
    axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(ticker.NullFormatter())


def annotate(axes: plt.Axes, points: Mapping[str, tuple[float, float]]) -> None:
    """Write names to the right of their points, from the lowest point up, each above those that it would cover."""
    axes.figure.draw_without_rendering()
    pixels_per_point, placed = axes.figure.dpi / 72, []
    width, height = 45 * pixels_per_point, 7.5 * pixels_per_point
    for name, point in sorted(points.items(), key=lambda item: item[1][::-1]):
        x, y = axes.transData.transform(point)
        covered = [other + height for left, other in placed if abs(left - x) < width and y < other + height]
        place = max([y, *covered])
        placed.append((x, place))
        offset = (5, (place - y) / pixels_per_point - 2)
        axes.annotate(name, point, offset, textcoords="offset points", color="#555555", fontsize=6.5)


def save(figure: plt.Figure, directory: str | os.PathLike, name: str) -> None:
    """Write a figure as NAME.png and NAME.svg to a directory, and say so on stderr.

    Raises:
        UserError: they cannot be written.
    """
    path = Path(directory) / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(f"{path}.png", metadata={"Software": None})
        figure.savefig(f"{path}.svg", metadata={"Date": None})
    except OSError as error:
        raise UserError(f"cannot write {path}.png ({error.strerror}): choose another --figures_dir") from None
    plt.close(figure)
    print(f"{path}.png and .svg", file=sys.stderr)


def curves(folder: str | os.PathLike) -> dict[str, tuple[list[int], list[float]]]:
    """The curves of a run's summaries: {name: (epochs, values)}; {} if there are none.

    A run that was stopped and resumed may have written an epoch twice: the later one counts.
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


def pixel_snr(model: keras.Model) -> np.ndarray:
    """The signal-to-noise ratio of each pixel of a Lenet-fc in training, (28, 28); NaN where the pixel is dead.

    The network computes in float32 afterwards.
    """
    noise = model.get_layer("pixels_unit")
    # An image of its pixels' indices shows which of them are left. In bfloat16 they would be rounded.
    for layer in model.layers:
        layer.dtype_policy = "float32"
    numbers = np.arange(784, dtype=np.float32).reshape(1, 28, 28, 1)
    left = np.asarray(keras.Model(model.inputs, noise.input)([numbers]))[0].astype(int)
    snr = np.full(784, np.nan)
    snr[left] = np.where(np.asarray(noise.multiplier()) != 0, noise.snr(), np.nan)
    return snr.reshape(28, 28)
