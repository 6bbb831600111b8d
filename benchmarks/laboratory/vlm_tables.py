"""The tables of pretrained decoder models on public sets, from the files of their cells."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, geometric_mean, stdev

from pumer_hf.figures import duration
from pumer_hf.results import markdown_table

from . import store
from .site_rows import UNREDUCED
from .vlm_results import VlmCell, VlmScore
from .vlm_rows import BASELINE, WHOLE, Budget
from .vlm_scores import TITLES
from .vlm_sets import SETS

HEAD = ("method", "image tokens", "prefill", "time per question", "mean")
"""The first columns, before the sets."""


def read_cells(folder: Path) -> list[VlmCell]:
    """Return all cells of a folder.

    Raises:
        ValueError: there are none, or a file holds something else.
    """
    cells = [VlmCell.load(path) for path in sorted(folder.glob("*.json"))]
    if not cells:
        raise ValueError(f"--output {folder}: it has no cells (JSON files) yet: run the command without --render")
    return cells


def vlm_section(folder: Path) -> str:
    """Return the tables of all models whose cells are in a folder."""
    cells = read_cells(folder)
    models = dict.fromkeys(cell.model for cell in cells)
    return "\n".join(model_section([cell for cell in cells if cell.model == model]) for model in models)


def model_section(cells: Sequence[VlmCell]) -> str:
    """Return the tables of a model: one for each budget, each with the baselines above."""
    budgets = {cell.budget for cell in cells if cell.budget != WHOLE}
    ordered = sorted(budgets, key=lambda budget: (budget.speed is not None, -(budget.keep or 0), budget.speed or 0))
    tables = [f"**{budget.title}**\n\n{budget_table(cells, budget)}" for budget in ordered]
    return "\n\n".join([f"### {cells[0].model}", note(cells), *(tables or [budget_table(cells, WHOLE)])]) + "\n"


def budget_table(cells: Sequence[VlmCell], budget: Budget) -> str:
    """Return the table of a budget: a row for each method, a column for each set."""
    sets = sets_of(cells)
    shown = [cell for cell in cells if cell.budget in (WHOLE, budget)]
    names = sorted({(cell.place, cell.name) for cell in shown}, key=lambda name: order(*name))
    rows = [[*HEAD, *sets.values()]]
    for place, name in names:
        mine = {cell.set: cell for cell in shown if (cell.place, cell.name) == (place, name)}
        rows.append(table_row(place, name, [mine.get(one) for one in sets], bases_of(cells, list(sets))))
    return markdown_table(rows)


def table_row(place: str, name: str, cells: Sequence[VlmCell | None], bases: Sequence[VlmScore | None]) -> list[str]:
    """Return the row of a method.

    Args:
        place: where it reduces.
        name: its name.
        cells: its cell on each set; None if it was not run.
        bases: the score of the unreduced model on each set.
    """
    title = name if place == BASELINE else f"{place}: {name}"
    scores = [cell.score for cell in cells if cell is not None and cell.score is not None]
    shown = [scored(cell, base) for cell, base in zip(cells, bases, strict=True)]
    if not scores:
        return [title, "", "", "", "", *shown]
    kept = fmean(score.kept_tokens / score.image_tokens for score in scores)
    speed = geometric_mean([score.prefill.ratio for score in scores])
    costs = [f"{100 * kept:.0f} %", f"{speed:.2f}x", duration(fmean(score.seconds for score in scores))]
    return [title, *costs, mean_of(cells, bases), *shown]


def mean_of(cells: Sequence[VlmCell | None], bases: Sequence[VlmScore | None]) -> str:
    """Return the mean over the sets and its change; empty if the row lacks a set."""
    scores = [None if cell is None else cell.score for cell in cells]
    values = [score.accuracy.value for score in scores if score is not None]
    if len(values) < len(scores):
        return ""
    known = [base.accuracy.value for base in bases if base is not None and base not in scores]
    change = f" ({fmean(values) - fmean(known):+.1f})" if len(known) == len(values) else ""
    return f"{fmean(values):.1f}{change}"


def scored(cell: VlmCell | None, base: VlmScore | None) -> str:
    """Return the accuracy of a cell, its change against the unreduced model with its standard error, or why it is
    missing.
    """
    if cell is None:
        return "not run"
    if cell.score is None:
        return "failed" if cell.status == store.FAILED else cell.reason
    text = f"{cell.score.accuracy.value:.1f}"
    if base is None or cell.name == UNREDUCED or len(base.scores) != len(cell.score.scores):
        return text
    change, error = paired_change(cell.score.scores, base.scores)
    return f"{text} ({change:+.1f} ± {error:.1f})"


def paired_change(scores: Sequence[float], base: Sequence[float]) -> tuple[float, float]:
    """Return the mean change of the same questions in points, and its standard error over the questions."""
    changes = [100 * (mine - other) for mine, other in zip(scores, base, strict=True)]
    return fmean(changes), stdev(changes) / len(changes) ** 0.5 if len(changes) > 1 else 0.0


def sets_of(cells: Sequence[VlmCell]) -> dict[str, str]:
    """Return the titles of the sets by name: the public ones in their order, then the others."""
    titles = {cell.set: cell.title for cell in cells}
    return {name: titles[name] for name in sorted(titles, key=lambda name: ([*SETS, name].index(name), name))}


def bases_of(cells: Sequence[VlmCell], sets: Sequence[str]) -> list[VlmScore | None]:
    """Return the score of the unreduced model on each set; None if it was not run."""
    found = {cell.set: cell.score for cell in cells if cell.name == UNREDUCED}
    return [found.get(name) for name in sets]


def order(place: str, name: str) -> tuple[int, int, str]:
    """Return the place of a row in the table."""
    places = (BASELINE, "images", "inputs", "layers", "both")
    return places.index(place), 0 if name == UNREDUCED else 1, name


def note(cells: Sequence[VlmCell]) -> str:
    """Return what the tables of a model show, and how much was measured."""
    done = [cell for cell in cells if cell.score is not None]
    if not done:
        return "No cell has a result yet."
    facts = {}
    for cell in done:
        assert cell.score is not None, "only such cells are left"
        facts[cell.set] = f"{cell.title} {len(cell.score.scores):,} questions ({TITLES[cell.metric]}; {cell.source})"
    machines = dict.fromkeys(cell.environment.machine_name for cell in done)
    settings = done[0].settings
    return (
        "Scores in percent; in brackets the change against the unreduced model on the same questions, and its "
        "standard error over them. *Image tokens*: the part that a layer of the decoder runs on, in the mean over its "
        "layers. *Prefill*: how many times as fast, with the image encoder, in turn with the unreduced model, batch "
        f"{settings.batch_size}, precision {settings.dtype}; the geometric mean over the sets. *Time*: of `generate`, "
        f"in the same batches. Measured on {', '.join(machines)}. {'; '.join(facts[name] for name in sets_of(done))}."
    )
