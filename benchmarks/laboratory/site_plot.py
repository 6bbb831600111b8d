"""Draws the plot of the study of sites: what each row costs at one speed, before and after training."""

from pathlib import Path
from statistics import fmean
from typing import Any

from .site_results import SiteReport
from .site_rows import ROWS, UNREDUCED, SiteRow
from .study_plot import load_figure


def plot_sites(report: SiteReport, path: Path) -> Path:
    """Draw a panel for each speed, one below the other, with a line for each row that reaches it.

    A point is the mean change over the models, each against itself unreduced, and a bar goes from the lowest to the
    highest.
    """
    targets = sorted(report.targets)
    panels = {target: reached(report, target) for target in targets}
    heights = [0.8 + 0.24 * len(rows) for rows in panels.values()]
    figure = load_figure()(figsize=(7.6, 0.9 + sum(heights)), layout="constrained")
    axes = figure.subplots(len(targets), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    for place, (target, rows) in zip(axes, panels.items(), strict=True):
        place.axvline(0.0, color="grey", linewidth=0.8, linestyle=":")
        for is_trained, style in ((False, {"marker": "o", "mfc": "white"}), (True, {"marker": "s"})):
            draw_points(place, report, rows, target, is_trained, style)
        place.set_yticks(range(len(rows)), [f"{row.place}: {row.name}" for row in rows], fontsize="small")
        place.invert_yaxis()
        place.set_title(f"{target:g} times as fast", fontweight="bold", loc="left")
    axes[-1].set_xlabel("change of right answers in points: higher is better")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower right", ncols=2)
    figure.suptitle(f"Right answers at the same speed: a small LLaVA on {report.setting} digit scenes")
    figure.savefig(path, dpi=110, metadata={"Software": None})  # the same results give the same file
    return path


def reached(report: SiteReport, target: float) -> list[SiteRow]:
    """Return the rows that have a score at a speed, trained or not."""
    return [row for row in ROWS if changes(report, row, target, False) or changes(report, row, target, True)]


def changes(report: SiteReport, row: SiteRow, target: float, is_trained: bool) -> list[float]:
    """Return how much the right answers of each model in a row differ from its own unreduced ones, in points."""
    wanted = (row.name, row.place, target, is_trained)
    return [
        one.score.accuracy.value - report.baselines[one.seed][UNREDUCED].accuracy.value
        for one in report.cells
        if (one.name, one.place, one.target, one.is_trained) == wanted
    ]


def draw_points(
    axes: Any, report: SiteReport, rows: list[SiteRow], target: float, is_trained: bool, style: dict[str, Any]
) -> None:
    """Draw the means of the rows with their ranges. Trained ones stand a little lower."""
    heights, means, below, above = [], [], [], []
    for number, row in enumerate(rows):
        values = changes(report, row, target, is_trained)
        if values:
            heights.append(number + 0.2 * is_trained)
            means.append(fmean(values))
            below.append(means[-1] - min(values))
            above.append(max(values) - means[-1])
    label = "trained" if is_trained else "without training"
    axes.errorbar(means, heights, xerr=[below, above], linestyle="none", capsize=2, label=label, **style)
