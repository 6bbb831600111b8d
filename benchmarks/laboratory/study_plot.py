"""Draws the plots of the study: accuracy against measured speed."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from pumer_hf.release import extra_command

from .study_results import BASELINES, UPPER_BOUNDS, GroupResults, summaries
from .study_tables import method_name, metric_title

MARKERS = "osD^vP*Xd<>ph8"
SHOWN = 30.0
"""How far below the teachers the plot reaches, in points. Methods that are worse are named in the tables alone."""
TITLES = {False: "without training", True: "trained"}


def curves(results: GroupResults, is_trained: bool) -> dict[str, list[tuple[float, list[float]]]]:
    """Return the points of each method, the slowest first.

    A point is a measured speed, and how much each seed differs from its teacher.
    """
    lines: dict[str, list[tuple[float, list[float]]]] = {}
    for (method, _), summary in summaries(results.main(is_trained)).items():
        changes = results.changes(summary)
        if changes and method not in BASELINES:
            lines.setdefault(method, []).append((summary.speed, changes))
    return {method: sorted(points) for method, points in lines.items()}


def plot_group(results: GroupResults, path: Path) -> Path:
    """Draw the change of the metric against the measured speed: a panel without training, and one with it.

    There is a line per method through the means over the seeds, with bars from the lowest to the highest value. A
    vertical line is where no method gets that leaves the image tower alone.
    """
    panels = {done: found for done in (False, True) if (found := curves(results, done))}
    order = {method: number for number, method in enumerate({name: 0 for found in panels.values() for name in found})}
    figure = load_figure()(figsize=(5.5 * len(panels) + 1.5, 4.8), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for place, (is_trained, found) in zip(axes, panels.items(), strict=True):
        for method, points in found.items():
            draw_line(place, method, points, order[method])
        place.axhline(0.0, color="grey", linewidth=0.8, linestyle=":")
        fastest = max(speed for points in found.values() for speed, _ in points)
        limits = [teacher.limit for teacher in results.teachers if teacher.limit is not None]
        if limits and mean(limits) < 1.3 * fastest:
            place.axvline(mean(limits), color="black", linewidth=1.0, linestyle="-.", label="limit of the image tower")
        place.set_title(TITLES[is_trained])
        place.set_xlabel("measured speed, unreduced = 1")
    lowest = min(mean(changes) for found in panels.values() for points in found.values() for _, changes in points)
    axes[0].set_ylim(bottom=max(1.1 * lowest, -SHOWN) - 0.5)
    unit = results.teachers[0].value.type.difference.unit
    axes[0].set_ylabel(f"change of {metric_title(results)} in {unit or 'its own unit'}; higher is better")
    handles = {
        label: handle for place in axes for handle, label in zip(*place.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside right upper", fontsize="small")
    data, _, backbone = results.name.rpartition("-")
    figure.suptitle(f"{backbone} on {data.replace('_', ' ')}")
    figure.savefig(path, dpi=130, metadata={"Software": None})  # the same results give the same file
    return path


def draw_line(axes: Any, method: str, points: Sequence[tuple[float, Sequence[float]]], number: int) -> None:
    """Draw the line of a method. The number chooses its colour and marker."""
    speeds, means = [speed for speed, _ in points], [mean(changes) for _, changes in points]
    below = [middle - min(changes) for middle, (_, changes) in zip(means, points, strict=True)]
    above = [max(changes) - middle for middle, (_, changes) in zip(means, points, strict=True)]
    axes.errorbar(
        speeds,
        means,
        yerr=[below, above],
        label=method_name(method),
        color=f"C{number % 10}",
        marker=MARKERS[number % len(MARKERS)],
        linestyle="--" if method in UPPER_BOUNDS or number >= 10 else "-",
        capsize=3,
    )


def load_figure() -> Any:
    """Return matplotlib's `Figure`, which needs no display.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"the plots of the study need matplotlib: {extra_command('study')}") from error
    return Figure
