"""Makes the Markdown tables of the study from its results."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean

from pumer_hf.reducers import METHODS, PlainSchedule
from pumer_hf.release import DOCS
from pumer_hf.results import markdown_table
from pumer_hf.results.metrics import with_range

from . import store
from .methods import parts_of
from .records import TOLERANCE
from .study_results import BASELINES, UPPER_BOUNDS, GroupResults, Summary, summaries, winners

METRICS = {"accuracy": "accuracy", "text_to_image_recall@1": "text-to-image recall@1"}
"""The names of the main metrics in the tables."""
KINDS = ("sparse", "dense", "one place", "many places")
"""The groups of questions that the tables show apart."""
NOTE = (
    "Change of {metric} against the own teacher in {unit}: mean over the seeds and [lowest, highest], then the "
    "measured speed. **Bold**: the best mean among the methods that reach the speed with all seeds. (!): the speed is "
    f"off its target by more than {100 * TOLERANCE:.0f} %. (oracle): this method is told where to look, so it is a "
    "bound and does not compete."
)


def metric_title(results: GroupResults) -> str:
    """Return the name of a group's main metric in the tables."""
    teacher = results.teachers[0]
    return METRICS.get(teacher.metric, teacher.value.type.title(teacher.metric))


def values_text(values: Sequence[float]) -> str:
    """Return the mean of several values with their range."""
    return f"{values[0]:.1f}" if len(values) == 1 else with_range(values, "{:.1f}".format)


def teacher_table(results: GroupResults) -> str:
    """Return a table of the unreduced models, with their images, without them, and with wrong ones."""
    kinds = [kind for kind in KINDS if kind in results.teachers[0].by_group]
    rows = [["unreduced", "all questions", *kinds]]
    values = [teacher.value.value for teacher in results.teachers]
    rows.append(["own image", values_text(values)])
    rows[-1] += [values_text([teacher.by_group[kind] for teacher in results.teachers]) for kind in kinds]
    for name, title in (("no_image", "no image"), ("wrong_image", "image of another question")):
        found = [teacher.baselines[name] for teacher in results.teachers if name in teacher.baselines]
        if found:
            rows.append([title, values_text([one.main.value for one in found])])
            parts = [one.by_kind[one.main_name] for one in found]
            rows[-1] += [values_text([part[kind].value for part in parts]) for kind in kinds]
    return markdown_table(rows)


def intro(results: GroupResults) -> str:
    """Return a line about the teachers and the machine."""
    machines = dict.fromkeys(teacher.environment.machine_name for teacher in results.teachers)
    number = len(results.teachers)
    gflops = results.teachers[0].gflops
    words = (
        f"{number} teacher{'s' * (number > 1)}, one per seed, {gflops:.4f} GFLOPs. Measured on {'; '.join(machines)}."
    )
    limits = [teacher.limit for teacher in results.teachers if teacher.limit is not None]
    if limits:
        words += (
            f" Without its layers the model would be {mean(limits):.1f} times as fast: no method that reduces after "
            "the image tower and the embeddings can be faster."
        )
    trained_on = [cell for cell in results.main(True) if cell.method in BASELINES]
    for summary in summaries(trained_on).values():
        words += f" Unreduced, trained on like the students: {cell_text(results, summary, with_speed=False)}."
    return words


def method_name(method: str) -> str:
    """Return the name of a method in the tables."""
    words = method.replace("_", " + ") if method.endswith("_pumer") else method.replace("_", " ")
    return f"{words} (oracle)" if method in UPPER_BOUNDS else words.replace("resolution", "smaller images")


def speed_table(results: GroupResults, is_trained: bool) -> str:
    """Return a table with a row per method and a column per target speed, or a line that says that nothing of it was
    run; empty if none is planned.
    """
    cells = [cell for cell in results.main(is_trained) if cell.method not in BASELINES]
    if not any(cell.status for cell in cells):
        return f"{'Trained' if is_trained else 'Without training'}: not run." if cells else ""
    by_row = summaries(cells)
    best = winners(results, by_row)
    targets = sorted({target for _, target in by_row if target is not None})
    rows = [["trained" if is_trained else "without training", *(f"{target:g}x" for target in targets)]]
    for method in dict.fromkeys(method for method, _ in by_row):
        row = [method_name(method)]
        for target in targets:
            summary = by_row.get((method, target))
            is_best = (method, target) in best
            row.append("" if summary is None else cell_text(results, summary, is_best=is_best))
        rows.append(row)
    return markdown_table(rows)


def cell_text(results: GroupResults, summary: Summary, *, is_best: bool = False, with_speed: bool = True) -> str:
    """Return a cell of a table: the change against the teachers and the speed, or why there is none."""
    marks = []
    if failed := summary.with_status(store.FAILED):
        marks.append(f"{len(failed)} failed: {failed[0].error.partition(':')[0]}")
    if summary.with_status(store.OUT_OF_REACH):
        marks.append(f"out of reach, at most {summary.speed:.2f}x")
    if missing := summary.with_status(None):
        marks.append("not run" if len(missing) == len(summary.cells) else f"{len(missing)} not run")
    changes = results.changes(summary)
    if not changes:
        return "; ".join(marks)
    text = f"**{change(results, changes)}**" if is_best else change(results, changes)
    if with_speed:
        target = summary.cells[0].target
        off = target is not None and abs(summary.speed / target - 1) > TOLERANCE
        text += f", {summary.speed:.2f}x" + " (!)" * off
    return "; ".join([text, *marks])


def change(results: GroupResults, changes: Sequence[float]) -> str:
    """Return the changes of several students against their teachers: mean and range. A single one says so."""
    signed = results.teachers[0].value.signed
    if len(changes) == 1:
        return f"{signed(changes[0])} (one seed)"
    return with_range(changes, signed)


def kind_table(results: GroupResults, is_trained: bool, target: float) -> str:
    """Return the changes at one target speed by group of questions, with what the method costs; empty if none."""
    kinds = [kind for kind in KINDS if kind in results.teachers[0].by_group]
    cells = [cell for cell in results.main(is_trained) if cell.target == target]
    rows = [[f"{'trained' if is_trained else 'without training'}, {target:g}x", "all", *kinds, "GFLOPs", "speed"]]
    for (method, _), summary in summaries(cells).items():
        if changes := results.changes(summary):
            row = [method_name(method), f"{mean(changes):+.2f}"]
            row += [f"{mean(results.changes(summary, kind)):+.2f}" for kind in kinds]
            rows.append([*row, *cost_texts(results, summary)])
    return markdown_table(rows) if len(rows) > 1 and kinds else ""


def cost_texts(results: GroupResults, summary: Summary) -> list[str]:
    """Return the GFLOPs of a summary's students, as a part of the teacher's, and their measured speed."""
    gflops = next(cell.gflops for cell in summary.cells if cell.gflops is not None)
    return [f"{gflops / results.teachers[0].gflops:.3f}", f"{summary.speed:.2f}x"]


def ablation_table(results: GroupResults) -> str:
    """Return the table of the variants of each method; empty if there are none."""
    variants = results.ablations(True)
    if not any(cell.status == store.DONE for cell in variants):
        return ""
    targets = {(cell.method, cell.target) for cell in variants}
    mains = {
        done: [cell for cell in results.main(done) if (cell.method, cell.target) in targets] for done in (True, False)
    }
    trained = summaries([*mains[True], *variants], by_variant=True)
    untrained = summaries([*mains[False], *results.ablations(False)], by_variant=True)
    rows = [["", "trained", "without training", "schedule", "GFLOPs", "speed"]]
    for row, summary in trained.items():
        if not results.changes(summary):
            continue
        without = untrained.get(row)
        untrained_text = cell_text(results, without, with_speed=False) if without else "as above"
        text = cell_text(results, summary, with_speed=False)
        schedule = schedule_text(summary.cells[0].reduction)
        rows.append([summary.cells[0].title, text, untrained_text, schedule, *cost_texts(results, summary)])
    return markdown_table(rows)


def compared_table(reports: Mapping[str, GroupResults]) -> str:
    """Return a short table of the methods at the most important speed, without training and trained, with two columns
    per group.

    Raises:
        ValueError: this speed is not the same in all groups.
    """
    targets = {name: speed for name, results in reports.items() for speed in first_target(results, False)}
    if len(set(targets.values())) != 1:
        found = ", ".join(f"{name}: {target:g}x" for name, target in targets.items())
        raise ValueError(f"a short table has one speed ({found}): name files of groups with the same first speed")
    target = next(iter(targets.values()))
    columns = [
        (results, done, summaries(results.main(done))) for results in reports.values() for done in (False, True)
    ]
    rows = [[f"{target:g} times as fast"]]
    for results in reports.values():
        rows[0] += [f"{results.name}, without training", "trained"]
    cells = [cell for results in reports.values() for cell in results.cells if cell.method not in BASELINES]
    for method in dict.fromkeys(cell.method for cell in cells):
        texts = [short_text(results, by_row.get((method, target)), done) for results, done, by_row in columns]
        rows.append([method_link(method), *texts])
    return f"{markdown_table(rows)}\n\n{' '.join(map(short_note, reports.values()))}\n"


def short_text(results: GroupResults, summary: Summary | None, is_trained: bool) -> str:
    """Return a cell of the short table. A method that has no row without training is one that learns."""
    if summary is None:
        return "not run" if is_trained else "learns"
    return cell_text(results, summary, with_speed=False)


def short_note(results: GroupResults) -> str:
    """Return a line about a group under the short table."""
    own = values_text([teacher.value.value for teacher in results.teachers])
    machines = "; ".join(dict.fromkeys(teacher.environment.machine_name for teacher in results.teachers))
    return f"{results.name}: {metric_title(results)} of the unreduced models {own}; {machines}."


def method_link(method: str) -> str:
    """Return the name of a method in the tables, with a link to its page."""
    for known in (method, method.partition("_")[0]):
        if known in METHODS:
            return f"[{method_name(method)}]({DOCS}methods/{known}/)"
    return method_name(method)


def schedule_text(reduction: PlainSchedule | None) -> str:
    """Return a schedule in short: its layers and ratios."""
    return " + ".join(part_text(part) for part in parts_of(reduction)) if reduction else ""


def part_text(part: dict) -> str:
    """Return a part of a schedule in short."""
    words = [f"layers {', '.join(map(str, part['layers']))}"] if part["layers"] else [part["site"]]
    for name, value in part.items():
        if name.endswith("_ratio"):
            numbers = value if isinstance(value, list) else [value]
            title = name.removesuffix("_ratio").replace("_", " ")
            words.append(f"{title} {', '.join(f'{one:.2g}' for one in numbers)}")
    return "; ".join(words)


def group_section(results: GroupResults, picture: str = "") -> str:
    """Return all tables of a group.

    Args:
        results: the results of the group.
        picture: the path of its plot, relative to the document; none if it is empty.
    """
    unit = results.teachers[0].value.type.difference.unit or "its own unit"
    parts = [intro(results)]
    if results.teachers[0].by_group:
        parts.append(teacher_table(results))
    parts += [speed_table(results, False), speed_table(results, True)]
    parts.append(NOTE.format(metric=metric_title(results), unit=unit))
    if picture and results.has_curves:
        parts.append(f"![{metric_title(results).capitalize()} against measured speed, {results.name}]({picture})")
    parts += [kind_table(results, done, target) for done in (False, True) for target in first_target(results, done)]
    if table := ablation_table(results):
        parts += ["The parts of PuMer, at the same speed if not stated otherwise:", table]
    return "\n\n".join(filter(None, parts)) + "\n"


def first_target(results: GroupResults, is_trained: bool) -> Iterable[float]:
    """Return the most important target speed, the first one of the plan; nothing if there is none."""
    targets = [cell.target for cell in results.main(is_trained) if cell.target is not None]
    return targets[:1]


def study_report(groups: Iterable[GroupResults]) -> str:
    """Return all tables of a study as a Markdown document for the folder of its results."""
    parts = ["# Methods at the same measured speed\n", "Rendered from the JSON files in this folder.\n"]
    for results in groups:
        parts += [f"## {results.name}\n", group_section(results, f"{results.name}.png")]
    return "\n".join(parts)


def study_section(document: Path, file: str) -> str:
    """Return what a document shows of a group: its tables and its plot.

    Args:
        document: the file that shows them.
        file: the results of the group, relative to the document.
    """
    results = GroupResults.load(document.parent / file)
    return group_section(results, file.removesuffix(".json") + ".png")
