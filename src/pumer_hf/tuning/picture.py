"""Draws what a tuning has found: the answers over the measured speed."""

from pathlib import Path
from typing import Any

from ..release import extra_command
from .report import Row, Tuned

MARKERS = "osD^vP*X<>hd"


def draw_front(tuned: Tuned, path: str | Path) -> None:
    """Draw a line for each candidate, a thick line for the best of all, and a star for the unreduced model.

    Args:
        tuned: a tuning with data.
        path: a PNG file.
    """
    figure = load_figure()(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    names = list(dict.fromkeys(row.name for row in tuned.rows if row.is_reached))
    for number, name in enumerate(names):
        speeds, scores = points([row for row in tuned.rows if row.name == name and row.is_reached])
        axes.plot(speeds, scores, label=name, marker=MARKERS[number % len(MARKERS)], linewidth=0.8, alpha=0.7)
    start = 100.0 if tuned.accuracy is None else tuned.accuracy
    speeds, scores = points(tuned.front)
    axes.plot([1.0, *speeds], [start, *scores], "k-", linewidth=2.5, alpha=0.5, label="best of all", zorder=0)
    axes.plot([1.0], [start], "k*", markersize=12, label="unreduced")
    axes.set_xlabel("measured speed, unreduced = 1")
    axes.set_ylabel(f"{'answers kept' if tuned.accuracy is None else 'accuracy'} in %: higher is better")
    axes.set_title(f"Answers against measured speed: {Path(tuned.model).name} on {tuned.data}", fontsize="medium")
    figure.legend(fontsize="small", loc="outside lower center", ncols=3)  # not on the lines
    figure.savefig(path, format="png", dpi=150, metadata={"Software": None})


def points(rows: list[Row]) -> tuple[list[float], list[float]]:
    """Return the speeds and the scores of rows, the slowest first."""
    ordered = sorted(rows, key=lambda row: row.speed)
    return [row.speed for row in ordered], [row.score for row in ordered]


def load_figure() -> Any:
    """Return matplotlib's `Figure`, which needs no display.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"--picture needs matplotlib: {extra_command('study')}") from error
    return Figure
