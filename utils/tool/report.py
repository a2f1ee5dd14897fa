"""What pruning did to a network, as a table, a file and a picture."""

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_sbp.utils.io import checkpoint
from keras_sbp.utils.io.report import align

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass
class Measurements:
    """Of one network.

    score: on the test data, of `Report.metric`. macs: for one example, of the layers that are counted. size: of the
    .keras file, in bytes. latency: milliseconds for one example in LiteRT on one thread.
    """

    score: float
    macs: int
    parameters: int
    size: int
    latency: float | None = None


@dataclasses.dataclass
class Units:
    """A layer's units before and after; reason: why they all stay."""

    layer: str
    before: int
    after: int
    reason: str = ""


@dataclasses.dataclass
class Point:
    """A point of the trade-off: MACs, and the score on the validation data before fine-tuning."""

    macs: int
    score: float


@dataclasses.dataclass
class Report:
    """What `prune` did.

    before: the network as given. after: the smaller one. control: the network as given, trained without noise for as
    long, if asked for. target: what was asked and what was reached. margin: half of the 95 % interval of after -
    before, in points. uncounted: layers whose MACs are not known, so that no ratio of MACs is given.
    usable: whether the smaller network knows more than chance does, if the network as given did.
    """

    task: str
    metric: str
    examples: dict[str, int]
    target: dict[str, Any]
    before: Measurements
    after: Measurements
    control: Measurements | None
    margin: float | None
    units: list[Units]
    tradeoff: list[Point]
    uncounted: list[str]
    not_measured: str | None
    notes: list[str]
    warnings: list[str]
    settings: dict[str, Any]
    usable: bool = True

    @property
    def ratio(self) -> float | None:
        """How many times fewer MACs; None where some are not counted."""
        return None if self.uncounted else self.before.macs / max(self.after.macs, 1)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the fields, and the ratio of MACs."""
        return dataclasses.asdict(self) | {"macs_ratio": self.ratio}

    def save(self, directory: str | os.PathLike) -> None:
        """Write report.json, report.txt and report.png.

        Raises:
            OSError: they cannot be written.
        """
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.to_dict(), indent=1, default=_plain) + "\n"
        checkpoint.write(str(folder / "report.json"), lambda file: file.write(text.encode()))
        checkpoint.write(str(folder / "report.txt"), lambda file: file.write(f"{self}\n".encode()))
        figure = self.plot()
        checkpoint.write(str(folder / "report.png"), lambda file: figure.savefig(file, format="png", dpi=150))

    def plot(self) -> "Figure":
        """The picture: units per layer, and the trade-off. A matplotlib Figure."""
        from keras_sbp.utils.tool import picture  # matplotlib takes a second to import

        return picture.draw(self)

    def __str__(self) -> str:
        lines = [("Layer", "Units", "after", "")]
        lines += [(unit.layer, str(unit.before), str(unit.after), unit.reason) for unit in self.units]
        parts = [align(lines, "<>><"), align(self._measurements(), "<>>>>" if self.control else "<>>>")]
        remarks = [*self.notes, *(f"warning: {warning}" for warning in self.warnings)]
        return "\n\n".join([*parts, "\n".join([self.verdict(), *remarks])])

    def _measurements(self) -> list[tuple[str, ...]]:
        networks = [self.before, *([self.control] if self.control else []), self.after]
        heads = ["before", *(["no noise"] if self.control else []), "after"]

        def row(name: str, values: list, form: str, ratio: bool) -> tuple[str, ...]:
            first, last = values[0], values[-1]
            return (
                name,
                *(form.format(value) for value in values),
                f"{first / max(last, 1e-12):.2f}x" if ratio else "",
            )

        digits = "{:.2f}" if self.metric.endswith("%") else "{:.4g}"
        rows = [("", *heads, ""), row(self.metric, [network.score for network in networks], digits, False)]
        macs = row("MACs", [network.macs for network in networks], "{:,}", not self.uncounted)
        rows.append((*macs[:-1], f"not counted: {', '.join(self.uncounted)}") if self.uncounted else macs)
        rows.append(row("Parameters", [network.parameters for network in networks], "{:,}", True))
        rows.append(row("File, bytes", [network.size for network in networks], "{:,}", True))
        if not self.not_measured:
            rows.append(row("LiteRT, ms", [network.latency or math.nan for network in networks], "{:.3g}", True))
        return rows

    def verdict(self) -> str:
        """What was asked, and what was reached."""
        asked, reached = self.target["asked"], self.target["reached"]
        changed = self.after.score - self.before.score
        margin = "" if self.margin is None else f" ± {self.margin:.2f}"
        unit = "points" if self.metric.endswith("%") else "in the loss"
        return (
            f"asked for {asked}, got {reached}; {self.metric.split(',')[0].lower()} {changed:+.3g}{margin} {unit} on "
            f"{self.examples['test']} test examples"
        )


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)
