"""Draws the plots of the study: accuracy against measured speed."""

from pathlib import Path
from statistics import mean
from typing import Any

from pumer_hf.release import extra_command

from .methods import MAIN
from .study_results import BASELINES, UPPER_BOUNDS, StudyResults, read_study, summaries
from .study_tables import metric_title

MARKERS = "osD^vP*X"


def write_plots(folder: Path) -> list[Path]:
    """Draw `<data>-<backbone>.png` into the folder of a study, for each group with a trained student."""
    results = read_study(folder)
    groups = [group for group in results.groups if curves(results, group)]
    return [plot_group(results, group, folder / f"{group}.png") for group in groups]


def curves(results: StudyResults, group: str) -> dict[str, list[tuple[float, list[float]]]]:
    """Return the points of each method, the slowest first. A point is a measured speed and the metric of each seed."""
    lines: dict[str, list[tuple[float, list[float]]]] = {}
    for (method, _), summary in summaries(results.of(group, MAIN)).items():
        if summary.values and method not in BASELINES:
            lines.setdefault(method, []).append((summary.speed, summary.values))
    return {method: sorted(points) for method, points in lines.items()}


def plot_group(results: StudyResults, group: str, path: Path) -> Path:
    """Draw one line per method through the means over the seeds, with bars from the lowest to the highest value.

    The teacher is a point at speed 1.
    """
    teacher = results.teachers[group]
    figure = load_figure()(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for number, (method, points) in enumerate(curves(results, group).items()):
        speeds, means = [speed for speed, _ in points], [mean(values) for _, values in points]
        below = [middle - min(values) for middle, (_, values) in zip(means, points, strict=True)]
        above = [max(values) - middle for middle, (_, values) in zip(means, points, strict=True)]
        axes.errorbar(
            speeds,
            means,
            yerr=[below, above],
            label=f"{method} (oracle)" if method in UPPER_BOUNDS else method,
            marker=MARKERS[number % len(MARKERS)],
            linestyle="--" if method in UPPER_BOUNDS else "-",
            capsize=3,
        )
    axes.plot([1.0], [teacher.value.value], "k*", markersize=12, label="teacher")
    axes.axhline(teacher.value.value, color="grey", linewidth=0.8, linestyle=":")
    axes.set_xlabel("measured throughput, teacher = 1")
    unit = teacher.value.unit
    axes.set_ylabel(f"{metric_title(teacher)} in {unit}" if unit else metric_title(teacher))
    axes.set_title(group)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=150, metadata={"Software": None})  # the same results give the same file
    return path


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
