"""The picture of a report: which units are left of each layer, and the trade-off with the chosen point."""

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Colors that the color-blind tell apart (Okabe and Ito, 2008).
BLUE, VERMILION, GRAY = "#0072B2", "#D55E00", "#BBBBBB"
# Of more layers, those with the most units are shown.
MOST_LAYERS = 40


def draw(report) -> Figure:
    """A figure of a `Report`, which no window or notebook backend has to show."""
    units = sorted(sorted(report.units, key=lambda unit: -unit.before)[:MOST_LAYERS], key=report.units.index)
    figure = Figure(figsize=(10, max(3, 0.9 + 0.22 * len(units))), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    _draw_units(left, units)
    if report.tradeoff:
        _draw_tradeoff(right, report)
    else:
        right.set_axis_off()
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_units(axes, units) -> None:
    rows = range(len(units))
    axes.barh(rows, [100] * len(units), color=GRAY, height=0.7)
    axes.barh(rows, [100 * unit.after / unit.before for unit in units], color=BLUE, height=0.7)
    for row, unit in zip(rows, units):
        reason = f"  {unit.reason}" if unit.reason else ""
        axes.text(
            1,
            row,
            f"{unit.after} of {unit.before}{reason}",
            va="center",
            fontsize=7,
            color="white" if 2 * unit.after > unit.before else "black",
        )
    axes.set_yticks(rows, [unit.layer for unit in units], fontsize=7)
    axes.invert_yaxis()
    axes.set(xlabel="Units left, %", xlim=(0, 100))


def _draw_tradeoff(axes, report) -> None:
    full = report.before.macs
    points = sorted(report.tradeoff, key=lambda point: point.macs)
    axes.plot(
        [full / point.macs for point in points],
        [point.score for point in points],
        "o-",
        color=BLUE,
        label="by threshold, before fine-tuning (validation)",
    )
    axes.plot(
        [full / max(report.after.macs, 1)],
        [report.after.score],
        "*",
        color=VERMILION,
        markersize=14,
        label="chosen, fine-tuned (test)",
    )
    axes.axhline(report.before.score, color=GRAY, linestyle="--", label="as given (test)")
    axes.set(xscale="log", xlabel="MACs: how many times fewer", ylabel=report.metric)
    ticks = [tick for tick in (1, 1.5, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000) if tick <= 1.1 * full / points[0].macs]
    axes.set_xticks(ticks, [f"{tick:g}×" for tick in ticks])
    axes.minorticks_off()
    axes.legend(fontsize=7, frameon=False)
