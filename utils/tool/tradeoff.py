"""The trade-off of a finished run: accuracy over MACs, and networks at any point of it without training again."""

import json
import numbers
import os
from pathlib import Path
from typing import TYPE_CHECKING

import keras

from keras_sbp.utils.io import networks
from keras_sbp.utils.io.command_line import UserError
from keras_sbp.utils.io.report import align
from keras_sbp.utils.tool import compact
from keras_sbp.utils.tool.refusal import Refused
from keras_sbp.utils.tool.report import Point
from keras_sbp.utils.tool.run import NOISY
from keras_sbp.utils.tool.targets import Ranking

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Tradeoff:
    """Accuracy on the validation data over MACs, before fine-tuning; printed, it is a table.

    Attributes:
        metric: what the scores are.
        points: from the most MACs to the fewest.
    """

    def __init__(self, directory: Path):
        try:
            report = json.loads((directory / "report.json").read_text())
            self.metric, self._full = report["metric"], report["before"]["macs"]
            self.points = [Point(**point) for point in report["tradeoff"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Refused(
                f"{directory} holds no finished run ({error}): give the directory of a call of prune"
            ) from None
        if not (directory / NOISY).is_file():
            raise Refused(f"{directory} has no {NOISY}, which prune left there: make the call of prune again")
        try:
            self._noisy = networks.load(directory / NOISY)
        except UserError as error:
            raise Refused(str(error)) from None

    def shrink(self, target: float) -> keras.Model:
        """The network at a point: `target` times fewer MACs, not fine-tuned.

        `prune(model, data, target, directory=...)` with the same directory takes it from the same training, too, and
        fine-tunes it.

        Raises:
            ValueError: the target is no number from 1, or cannot be reached.
        """
        if not isinstance(target, numbers.Real) or not target >= 1:
            raise Refused(f"target={target}: give how many times fewer MACs, a number from 1")
        ranking = Ranking(self._noisy)
        most = ranking.macs(0) / ranking.macs(len(ranking.thresholds) - 1)
        if target > 1.02 * most:
            raise Refused(f"target={target:g} cannot be reached: with one unit left per layer it is {most:.2f}x")
        return compact.shrink(self._noisy, ranking.at(ranking.macs(0) / target))

    def plot(self) -> "Figure":
        """The picture: a matplotlib Figure."""
        from keras_sbp.utils.tool import picture  # matplotlib takes a second to import

        return picture.draw_tradeoff(self.points, self._full, self.metric)

    def __str__(self) -> str:
        rows = [(f"{self._full / point.macs:.2f}x", f"{point.macs:,}", f"{point.score:.4g}") for point in self.points]
        return align([("MACs", "", self.metric), *rows], ">>>")


def tradeoff(directory: str | os.PathLike) -> Tradeoff:
    """The trade-off of the run that `prune(..., directory=directory)` left.

        curve = sbp.tradeoff("run")
        print(curve)
        curve.shrink(5).save("five.keras")

    Raises:
        ValueError: there is no finished run in the directory, or its network cannot be read.
    """
    return Tradeoff(Path(directory))
