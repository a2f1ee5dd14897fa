"""The picture of a report: which units are left of each layer, and the trade-off with the chosen point."""

from collections.abc import Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Colors that the color-blind tell apart (Okabe and Ito, 2008).
BLUE, VERMILION, GRAY = "#0072B2", "#D55E00", "#DDDDDD"
# Of more layers, those with the most units are shown.
MOST_LAYERS = 40
TICKS = (1, 1.5, 2, 3, 5, 7, 10, 20, 30, 50, 100, 200, 500, 1000)


def draw(report: Any) -> Figure:
    """A figure of a `Report`, which no window or notebook backend has to show."""
    most = sorted(report.units, key=lambda unit: -unit.before)[:MOST_LAYERS]
    units = [unit for unit in report.units if unit in most]
    figure = _figure(10, max(3.2, 1 + 0.22 * len(units)))
    left, right = figure.subplots(1, 2)
    _draw_units(left, units)
    chosen = (report.before.macs / max(report.after.macs, 1), report.after.score)
    _draw_tradeoff(right, report.tradeoff, report.before.macs, report.metric, chosen, report.before.score)
    return figure


def draw_tradeoff(points: Sequence, full: int, metric: str) -> Figure:
    """A figure of a trade-off alone."""
    figure = _figure(5.5, 3.5)
    _draw_tradeoff(figure.subplots(), points, full, metric)
    return figure


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _draw_units(axes, units) -> None:
    axes.barh(range(len(units)), [100] * len(units), color=GRAY, height=0.8)
    axes.barh(range(len(units)), [100 * unit.after / unit.before for unit in units], color=BLUE, height=0.8)
    for row, unit in enumerate(units):
        wide = 2 * unit.after > unit.before
        text = f"{unit.after} of {unit.before}{': ' * bool(unit.reason)}{unit.reason}"
        place = {"x": 2, "color": "white"} if wide else {"x": 98, "ha": "right", "color": "black"}
        axes.text(y=row, s=text, va="center", fontsize=7, **place)
    axes.set_yticks(range(len(units)), [unit.layer for unit in units], fontsize=7)
    axes.invert_yaxis()
    axes.set(xlabel="Units left, %", xlim=(0, 100), title="Units per layer, after of before")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_tradeoff(axes, points, full, metric, chosen=None, before=None) -> None:
    points = sorted(points, key=lambda point: -point.macs)
    ratios = [full / point.macs for point in points]
    label = "one training, before fine-tuning (validation data)"
    axes.plot(ratios, [point.score for point in points], "o-", color=BLUE, markersize=4, label=label)
    if chosen:
        axes.plot(*chosen, "*", color=VERMILION, markersize=14, label="chosen, fine-tuned (test data)")
        axes.axhline(before, color="black", linestyle=":", linewidth=1, label="as given (test data)")
    shown = [tick for tick in TICKS if tick <= 1.05 * max([*ratios, *(chosen or (1,))[:1]])]
    axes.set(xscale="log", xlabel="times fewer MACs", ylabel=metric, title="Trade-off")
    axes.set_xticks(shown, [f"{tick:g}" for tick in shown])
    axes.minorticks_off()
    axes.legend(fontsize=7, frameon=False, loc="lower left")
    axes.spines[["top", "right"]].set_visible(False)
