"""Makes the Markdown tables of the study from its results."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from pumer_hf.results import Metric, markdown_table

from . import store
from .methods import MAIN, TRAINING_FREE
from .records import CellResult, TeacherResult
from .speeds import TOLERANCE
from .study_results import BASELINES, UPPER_BOUNDS, StudyResults, Summary, read_study, summaries, winners

METRICS = {"accuracy": "accuracy", "text_to_image_recall@1": "text-to-image recall@1"}
"""The names of the main metrics in the tables."""
NOTES = (
    "Change of {metric} against the teacher in {unit}: mean, [lowest, highest] and number of seeds, then the measured "
    "speed. **Bold**: the best mean among the methods that reach the speed. (!): the speed is off its target by more "
    f"than {100 * TOLERANCE:.0f} %."
)
UPPER_BOUND_NOTE = "(oracle): this method is told where to look, so it is a bound and does not compete."


def metric_title(teacher: TeacherResult) -> str:
    """Return the name of a group's main metric in the tables."""
    return METRICS.get(teacher.metric, teacher.value.type.title(teacher.metric))


def main_section(results: StudyResults, group: str) -> str:
    """Return a line about the teacher, and the table of methods and target speeds."""
    teacher = results.teachers[group]
    metric = metric_title(teacher)
    lines = [f"Teacher: {teacher.value} {metric}, {teacher.gflops:.4f} GFLOPs."]
    lines.append(f"Speeds are of {teacher.environment.machine_name}.")
    cells = results.of(group, MAIN)
    for summary in summaries([cell for cell in cells if cell.method in BASELINES]).values():
        lines.append(f"Unreduced, trained on like the students: {cell_text(summary, teacher, with_speed=False)}.")
    competing = [cell for cell in cells if cell.method not in BASELINES]
    bounded = any(cell.method in UPPER_BOUNDS for cell in competing)
    unit = teacher.value.type.difference.unit or "its own unit"
    notes = [NOTES.format(metric=metric, unit=unit), *([UPPER_BOUND_NOTE] if bounded else [])]
    return "\n\n".join([" ".join(lines), speed_table(competing, teacher), " ".join(notes)]) + "\n"


def speed_table(cells: Sequence[CellResult], teacher: TeacherResult) -> str:
    """Return a table with a row per method and a column per target speed."""
    by_row = summaries(cells)
    best = winners(by_row)
    targets = sorted({target for _, target in by_row if target is not None})
    rows = [["method", *(f"{target:g}x" for target in targets)]]
    for method in dict.fromkeys(method for method, _ in by_row):
        row = [f"{method} (oracle)" if method in UPPER_BOUNDS else method]
        for target in targets:
            summary = by_row.get((method, target))
            is_best = (method, target) in best
            row.append("" if summary is None else cell_text(summary, teacher, is_best=is_best))
        rows.append(row)
    return markdown_table(rows)


def cell_text(summary: Summary, teacher: TeacherResult, *, is_best: bool = False, with_speed: bool = True) -> str:
    """Return a cell of a table: the change against the teacher and the speed, or why there is none."""
    marks = []
    if failed := summary.with_status(store.FAILED):
        marks.append(f"{len(failed)} failed: {failed[0].error.partition(':')[0]}")
    if summary.with_status(store.OUT_OF_REACH):
        marks.append(f"out of reach, at most {summary.speed:.2f}x")
    if missing := summary.with_status(None):
        marks.append("not run" if len(missing) == len(summary.cells) else f"{len(missing)} not run")
    if not summary.metrics:
        return "; ".join(marks)
    text = change(summary.metrics, teacher.value, is_best)
    if with_speed:
        text += f", {summary.speed:.2f}x"
        target = summary.cells[0].target
        if target is not None and not is_ablation(summary.cells[0]):
            text += " (!)" if abs(summary.speed / target - 1) > TOLERANCE else ""
    return "; ".join([text, *marks])


def change(metrics: Sequence[Metric], base: Metric, is_best: bool = False) -> str:
    """Return the change of several students against their teacher: mean, range and number.

    The best mean of a column is in bold.
    """
    changes = [metric.value - base.value for metric in metrics]
    text = f"**{base.signed(mean(changes))}**" if is_best else base.signed(mean(changes))
    if len(changes) > 1:
        text += f" [{base.signed(min(changes))}, {base.signed(max(changes))}]"
    return f"{text} n={len(changes)}"


def training_free_section(results: StudyResults, group: str) -> str:
    """Return the table of methods with the teacher's weights; an empty text if there are none."""
    cells = results.of(group, TRAINING_FREE)
    if not cells:
        return ""
    title = "Without training: the teacher's weights with the same schedules."
    return f"{title}\n\n{speed_table(cells, results.teachers[group])}\n"


def ablation_section(results: StudyResults, group: str, method: str) -> str:
    """Return the table of a method and its variants, for the seed that all of them have.

    The text is empty if there are no variants.
    """
    variants = [cell for cell in results.of(group) if cell.method == method and is_ablation(cell)]
    if not variants:
        return ""
    seed, target, teacher = variants[0].seed, variants[0].target, results.teachers[group]
    mains = [cell for cell in results.of(group, MAIN) if (cell.method, cell.seed) == (method, seed)]
    rows = [["", "schedule", "change", "GFLOPs"]]
    for cell in [*(cell for cell in mains if cell.target == target), *variants]:
        gflops = "" if cell.gflops is None else f"{cell.gflops:.4f}"
        rows.append([cell.title, schedule_text(cell.reduction), cell_text(Summary((cell,)), teacher), gflops])
    return f"Ablations of {method} at {target:g}x, seed {seed}:\n\n{markdown_table(rows)}\n"


def schedule_text(reduction: dict[str, Any] | None) -> str:
    """Return a schedule in short: its layers and ratios."""
    if reduction is None:
        return ""
    parts = [f"layers {', '.join(map(str, reduction['layers']))}"]
    for name, value in reduction.items():
        if name.endswith("_ratio"):
            numbers = value if isinstance(value, list) else [value]
            parts.append(
                f"{name.removesuffix('_ratio').replace('_', ' ')} {', '.join(f'{one:.2g}' for one in numbers)}"
            )
    return "; ".join(parts)


def study_report(folder: Path) -> str:
    """Return all tables of a study as a Markdown document for its folder."""
    results = read_study(folder)
    parts = ["# Methods at the same measured speed\n", "Rendered from the JSON files in this folder.\n"]
    for group in results.groups:
        parts += [f"## {group}\n", main_section(results, group), plot_line(folder, folder, group)]
        methods = dict.fromkeys(cell.method for cell in results.of(group))
        parts += [training_free_section(results, group)]
        parts += [ablation_section(results, group, method) for method in methods]
    return "\n".join(part for part in parts if part)


def study_section(document: Path, folder: str, group: str) -> str:
    """Return what a document shows of a study: the table and the plot of one group.

    Args:
        document: the file that shows them.
        folder: the folder of the results, relative to the document.
        group: `<data>-<backbone>`.
    """
    path = document.parent / folder
    if not (path / f"{store.PLAN}.json").is_file():
        return "Not run yet: `python benchmarks/study.py`.\n"
    results = read_study(path)
    if group not in results.groups:
        return f"{group} has not been run yet: `python benchmarks/study.py`.\n"
    picture = plot_line(path, document.parent, group)
    return main_section(results, group) + (f"\n{picture}" if picture else "")


def plot_line(folder: Path, start: Path, group: str) -> str:
    """Return the plot of a group as Markdown, with its path from `start`; an empty text if there is none."""
    path = folder / f"{group}.png"
    if not path.is_file():
        return ""
    return f"![Accuracy against measured speed, {group}]({path.relative_to(start).as_posix()})\n"


def is_ablation(cell: CellResult) -> bool:
    """Return whether a cell is a variant of its method."""
    return cell.variant not in (MAIN, TRAINING_FREE)
