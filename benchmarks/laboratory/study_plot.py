"""Draws the plots of the study: accuracy against measured speed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from pumer_hf.models.families import FAMILIES
from pumer_hf.release import extra_command

from .study_results import BASELINES, UPPER_BOUNDS, GroupResults, summaries
from .study_tables import method_name, metric_title

MARKERS = "osD^vP*Xd<>ph8"
NEAR = 5.0
"""A method that loses at most so many points at the most important speed has a colour. The upper panels end there."""
COLOURS = ["C0", "#c75b00", "C2", "C3", "C4", "C5", "#0b7285", "#b5179e", "#5f6b00"]
FAR_COLOUR = "0.6"
LABEL_STEP = 0.2
"""Inches from one name beside a panel to the next."""
Point = tuple[float, list[float]]
"""A measured speed, and how much each seed differs from its teacher."""
Curves = dict[str, list[Point]]
"""The points of each method, the slowest first."""
TITLES = {False: "without training", True: "trained"}


def curves(results: GroupResults, is_trained: bool) -> Curves:
    """Return the points of each method, without training or trained."""
    lines: Curves = {}
    for (method, _), summary in summaries(results.main(is_trained)).items():
        changes = results.changes(summary)
        if changes and method not in BASELINES:
            lines.setdefault(method, []).append((summary.speed, changes))
    return {method: sorted(points) for method, points in lines.items()}


def plot_group(results: GroupResults, path: Path) -> Path:
    """Draw the change of the metric against the measured speed, without training and then with it.

    There is a line per method through the means over the seeds, with bars from the lowest to the highest value. For
    each of the two, an upper panel shows the methods near the teachers at a scale of its own. A lower panel goes on
    to those far below. A vertical line is where no method gets that leaves the image tower alone.
    """
    states = {done: found for done in (False, True) if (found := curves(results, done))}
    target = next((cell.target for cell in results.cells if cell.target is not None), 1.0)
    styles = method_styles(list(states.values()), target)
    heights = [height for found in states.values() for height in panel_heights(found)]
    figure = load_figure()(figsize=(7.6, 1.0 + sum(heights)), layout="constrained")
    axes = iter(figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0])
    for is_trained, found in states.items():
        upper = next(axes)
        panels = [upper, next(axes)] if len(panel_heights(found)) > 1 else [upper]
        cut_panels(panels, found, near_limit(results, found))
        for panel in panels:
            draw_lines(panel, results, found, styles)
            write_names(panel, found, styles)
        upper.set_title(TITLES[is_trained].capitalize(), fontweight="bold", loc="left")
        panels[-1].set_xlabel("measured speed, unreduced = 1")
    metric = metric_title(results)
    unit = results.teachers[0].value.type.difference.unit or "its own unit"
    figure.supylabel(f"change of {metric} in {unit}: higher is better")
    figure.suptitle(f"{metric.capitalize()} against measured speed: {group_title(results.name)}", fontsize="x-large")
    figure.savefig(path, dpi=130, metadata={"Software": None})  # the same results give the same file
    return path


def group_title(name: str) -> str:
    """Return the name of a group in words: `"digit_scenes_cluttered-vilt"` is `"ViLT on cluttered digit scenes"`."""
    data, _, backbone = name.rpartition("-")
    words = data.removesuffix("_cluttered").replace("_", " ")
    return f"{FAMILIES[backbone].title} on {'cluttered ' if data.endswith('_cluttered') else ''}{words}"


def method_styles(states: Sequence[Curves], target: float) -> dict[str, dict[str, Any]]:
    """Return the look of each method. Those that lose little in one of the states have a colour, the others are grey.

    Args:
        states: what [`curves`] returns, without training and trained.
        target: the most important speed.
    """
    near = {name for found in states for name, points in found.items() if change_at(points, target) >= -NEAR}
    styles: dict[str, dict[str, Any]] = {}
    for number, name in enumerate(dict.fromkeys(name for found in states for name in found)):
        rank = sum(one in near and one not in UPPER_BOUNDS for one in styles)
        colour = "black" if name in UPPER_BOUNDS else COLOURS[rank % len(COLOURS)]
        styles[name] = {
            "color": colour if name in near else FAR_COLOUR,
            "marker": MARKERS[number % len(MARKERS)],
            "linestyle": "--" if name in UPPER_BOUNDS else "-",
            "zorder": 3 if name in near else 2,
        }
    return styles


def change_at(points: Sequence[Point], target: float) -> float:
    """Return the mean change of a method at its measured speed that is nearest to a target."""
    return mean(min(points, key=lambda point: abs(point[0] - target))[1])


def panel_heights(found: Curves) -> list[float]:
    """Return the heights of the panels of a state in inches: one panel if no point is far below the teachers."""
    lowest = min(mean(changes) for points in found.values() for _, changes in points)
    return [3.4, 2.9] if lowest < -NEAR else [3.4]


def draw_lines(axes: Any, results: GroupResults, found: Curves, styles: Mapping[str, dict[str, Any]]) -> None:
    """Draw the lines of all methods, that of the teachers, and the limit of the image tower if it is near.

    A point has its bar in the panel that it is in.
    """
    low, high = axes.get_ylim()
    for name, points in found.items():
        speeds, means = [speed for speed, _ in points], [mean(changes) for _, changes in points]
        axes.plot(speeds, means, **styles[name])
        shown = [changes for _, changes in points if low <= mean(changes) <= high]
        bars = [
            [mean(changes) - min(changes) for changes in shown],
            [max(changes) - mean(changes) for changes in shown],
        ]
        own = [speed for speed, changes in points if low <= mean(changes) <= high]
        look = {"color": styles[name]["color"], "zorder": styles[name]["zorder"]}
        axes.errorbar(own, list(map(mean, shown)), yerr=bars, fmt="none", capsize=2, elinewidth=0.8, **look)
    axes.axhline(0.0, color="black", linewidth=0.8, linestyle=":")
    if (limit := near_limit(results, found)) is not None:
        axes.axvline(limit, color="black", linewidth=1.0, linestyle="-.")
        if high > 0:  # the upper panel
            axes.text(limit, high, "limit of the image tower ", ha="right", va="top", fontsize="small")


def near_limit(results: GroupResults, found: Curves) -> float | None:
    """Return how fast a model without its layers would be; None if that is far from the speeds of the methods."""
    fastest = max(speed for points in found.values() for speed, _ in points)
    limits = [teacher.limit for teacher in results.teachers if teacher.limit is not None]
    return mean(limits) if limits and mean(limits) < 1.3 * fastest else None


def cut_panels(panels: Sequence[Any], found: Curves, limit: float | None) -> None:
    """Set what the panels of a state show. The upper one ends a little below `-NEAR`, where the lower one begins."""
    speeds = [speed for points in found.values() for speed, _ in points] + ([] if limit is None else [limit])
    changes = [change for points in found.values() for _, values in points for change in values]
    space = 0.05 * (max(speeds) - min(speeds)) or 0.05
    for panel in panels:
        panel.set_xlim(min(speeds) - space, max(speeds) + space)
    lowest = min(changes) - 0.05 * (max(changes) - min(changes)) - 0.5
    panels[0].set_ylim(lowest if len(panels) == 1 else -NEAR - 1, max(*changes, 0.0) + 1)
    if len(panels) > 1:
        panels[1].set_ylim(lowest, -NEAR - 1)
        panels[0].spines["bottom"].set_linestyle("--")
        panels[1].spines["top"].set_linestyle("--")
        panels[0].tick_params(labelbottom=False)


def write_names(axes: Any, found: Curves, styles: Mapping[str, dict[str, Any]]) -> None:
    """Write the name of each method that ends in a panel beside it, with a line to its last point."""
    low, high = axes.get_ylim()
    ends = {name: (points[-1][0], mean(points[-1][1])) for name, points in found.items()}
    inside = {name: end for name, end in ends.items() if low <= end[1] <= high}
    names = sorted(inside, key=lambda name: inside[name][1])
    step = LABEL_STEP * (high - low) / axes.get_gridspec().get_height_ratios()[axes.get_subplotspec().rowspan.start]
    for name, height in zip(names, apart([inside[name][1] for name in names], step, low, high), strict=True):
        axes.annotate(
            method_name(name),
            inside[name],
            (1.04, (height - low) / (high - low)),
            textcoords="axes fraction",
            va="center",
            color="0.35" if styles[name]["color"] == FAR_COLOUR else styles[name]["color"],
            arrowprops={
                "arrowstyle": "-",
                "color": styles[name]["color"],
                "linewidth": 0.7,
                "shrinkA": 2,
                "shrinkB": 4,
                "relpos": (0, 0.5),
            },
        )


def apart(heights: Sequence[float], step: float, low: float, high: float) -> list[float]:
    """Move ascending heights so that each is at least `step` above the one before, near where they were.

    They stay between `low` and `high` as long as there is room for all.
    """
    moved: list[float] = []
    for height in heights:
        moved.append(max(height, (moved[-1] if moved else low - step / 2) + step))
    ceiling = high + step / 2
    for place in reversed(range(len(moved))):
        moved[place] = ceiling = min(moved[place], ceiling - step)
    return moved


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
