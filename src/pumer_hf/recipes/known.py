"""What is known of other seeds of a recipe: a clone has the results behind the tables of README."""

from pathlib import Path

from ..recipe_files import recipe_folder
from ..results import Report, text_table
from .recipe import Recipe
from .report import range_row, seed_header

FREE = ("--output_dir", "--resume", "--report_to", "--seed", "--seeds", "--teacher")
"""The flags with which a run still is one of the same recipe."""


def known_results(recipe: Recipe, report: Report, folder: Path | None = None) -> list[str]:
    """Return lines that compare a run with the range over several seeds that is known; none if nothing is known.

    Args:
        recipe: the recipe of the run.
        report: its results. If it has several seeds itself, there are no lines.
        folder: the folder of known results; default: that of the clone. A wheel has none.
    """
    folder = folder or recipe_folder().parent / "benchmarks" / "results"
    if report.seeds or not recipe.has_student:
        return []
    for path in sorted(folder.glob(f"*_{recipe.model.backbone}*.json")):
        known = Report.load(path)
        if known.seeds and is_same(known, report):
            machine = known.environment.machine_name
            rows = [
                ["", *seed_header(report)],
                ["this run", *range_row(report)],
                [f"{len(known.seeds)} known seeds", *range_row(known)],
            ]
            where = f" on {machine}" if machine else ""
            return ["", f"This run beside known ones of its recipe{where} ({path.name}):", text_table(rows), ""]
    return []


def is_same(known: Report, report: Report) -> bool:
    """Return whether two reports are of one recipe: the same flags, test data, sizes and tokens."""
    facts = []
    for one in (known, report):
        command, student = one.environment.command, one.evaluations["student"]
        flags = None if command is None else command.without(FREE).flags
        facts.append(
            (flags, student.main_name, student.counts, one.cost.gflops, one.cost.to_dict()["tokens_per_layer"])
        )
    return facts[0] == facts[1]
