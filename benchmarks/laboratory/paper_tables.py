"""`python benchmarks/paper.py N`: the rows of a table of the paper, measured, beside its figures."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from tqdm.auto import tqdm

from pumer_hf.bench.contenders import Contender, Settings, contender, stock_contender
from pumer_hf.bench.cost import format_table
from pumer_hf.bench.environment import environment
from pumer_hf.bench.full_size import paper_model
from pumer_hf.bench.measure import measure, sizes
from pumer_hf.bench.profiles import REGIMES
from pumer_hf.encoding import QUESTION_LENGTH
from pumer_hf.models.encoders.base import PuMerPreTrainedModel

from .paper import TABLES, Row

BASELINE = "original"
Builder = Callable[..., PuMerPreTrainedModel]


def run_table(number: int, settings: Settings, build: Builder = paper_model) -> tuple[list[str], dict[str, Any]]:
    """Measure the rows of a table of PuMer with full-size models of random weights: what they cost, not how good they
    are.

    Args:
        number: 1 (backbone x task), 2 (METER at other resolutions), 4 (design choices), 7 (FLOPs).
        settings: how to measure; the latency is left out.
        build: makes a model from backbone, task, reduction and image size.

    Returns:
        Lines to print, and the results: `rows` by label, each with what was measured and the paper's figures, and the
        [`environment`].

    Raises:
        ValueError: there is no such table.
    """
    if number not in TABLES:
        raise ValueError(f"table {number}: choose one of {', '.join(map(str, TABLES))}")
    settings, rows = replace(settings, latency=False), TABLES[number]
    alone = number in (1, 7)  # each row has an original of its own
    groups: Sequence[Sequence[Row]] = [[row] for row in rows] if alone else [rows]
    measured: dict[str, dict[str, Any]] = {}
    for group in tqdm(groups, desc=f"Table {number}", unit="run"):
        measured |= count_group(group, build) if number == 7 else measure_group(group, settings, build)
    report = {"table": number, "text_length": QUESTION_LENGTH, "rows": measured, **environment()}
    lines = [format_table(table_cells(rows, measured)), f"Full-size models with random weights; {settings.dtype}."]
    if number != 7:
        lines.append("x: throughput of the original in the same run. Memory: peak of the activations that is saved.")
        lines.append(
            "The paper's figures are of other GPUs. Its memory stands beside that of a training step, as the code"
        )
        lines.append("released with it measures memory with gradients on.")
    return lines, report


def build_group(group: Sequence[Row], build: Builder) -> dict[str, PuMerPreTrainedModel]:
    """The original and the models of some rows, by label."""
    first = group[0]
    models = {BASELINE: build(first.backbone, first.task, None)}
    return models | {row.label: build(row.backbone, row.task, row.reduction, row.image_size) for row in group}


def count_group(group: Sequence[Row], build: Builder) -> dict[str, dict[str, Any]]:
    """The FLOPs of some rows."""
    settings, found = Settings(), {}
    contenders = {
        name: contender(model, QUESTION_LENGTH, settings) for name, model in build_group(group, build).items()
    }
    counted = sizes({name: (one, one.inputs(1)) for name, one in contenders.items()})
    for row in group:
        original, own = counted["gflops"][BASELINE], counted["gflops"][row.label]
        found[row.label] = {
            "gflops": {BASELINE: original, "reduced": own, "ratio": original / own},
            "paper": paper(row),
        }
    return found


def measure_group(group: Sequence[Row], settings: Settings, build: Builder) -> dict[str, dict[str, Any]]:
    """Some rows beside their original, in one interleaved run; where a row stands alone, beside stock transformers."""
    models = build_group(group, build)
    contenders: dict[str, Contender] = {}
    for name, model in models.items():
        contenders[name] = contender(model, QUESTION_LENGTH, settings)
        stock = stock_contender(model, QUESTION_LENGTH, settings) if name == BASELINE and len(group) == 1 else None
        if stock is not None:
            contenders["stock"] = stock
    report = measure(contenders, settings)
    speeds, found = report["throughput"], {}
    for row in group:
        own: dict[str, Any] = {
            "batch_size": speeds["batch_size"],
            "rounds": speeds["rounds"],
            "throughput": speeds[row.label]["ratio"],
            "gflops_ratio": report["gflops"][BASELINE] / report["gflops"][row.label],
            "reduction_share": report["reduction_share"].get(row.label),
        }
        if "stock" in contenders:
            own["throughput_over_stock"] = speeds[row.label]["ratio"] / speeds["stock"]["ratio"]
        if settings.memory:
            peaks = {regime: report["memory"][regime] for regime in REGIMES}
            own["memory_saved"] = {regime: 1 - peaks[regime][row.label] / peaks[regime][BASELINE] for regime in peaks}
        found[row.label] = {**own, "paper": paper(row)}
    return found


def paper(row: Row) -> dict[str, Any]:
    """What the paper reports for a row."""
    gflops = None if row.gflops is None else list(row.gflops)
    figures = {"throughput": row.throughput, "memory_saved": row.memory_saved, "gflops": gflops}
    return {name: value for name, value in figures.items() if value is not None}


def table_cells(rows: Sequence[Row], measured: dict[str, dict[str, Any]]) -> list[list[str]]:
    """The table, its header first, with the paper's figures in brackets."""
    if "gflops" in measured[rows[0].label]:
        cells = [["GFLOPs per example (paper)", BASELINE, "PuMer", "times fewer"]]
        for row in rows:
            gflops, (original, pumer) = measured[row.label]["gflops"], row.gflops or (0, 0)
            counts = [f"{gflops[BASELINE]:.1f} ({original:g})", f"{gflops['reduced']:.1f} ({pumer:g})"]
            cells.append([row.label, *counts, f"{gflops['ratio']:.2f}x ({original / pumer:.2f}x)"])
        return cells
    header = ["(paper)", "throughput", "GFLOPs", "over stock", *(f"memory, {regime}" for regime in REGIMES)]
    cells = [[*header, "reduction's time"]]
    for row in rows:
        own = measured[row.label]
        line = [row.label, f"{own['throughput']:.2f}x ({row.throughput:.2f}x)", f"{own['gflops_ratio']:.2f}x"]
        line.append(f"{own['throughput_over_stock']:.2f}x" if "throughput_over_stock" in own else "")
        for regime in REGIMES:
            told = f" ({change(row.memory_saved)})" if regime == "training" and row.memory_saved else ""
            line.append(f"{change(own['memory_saved'][regime])}{told}" if "memory_saved" in own else "")
        share = own["reduction_share"]
        cells.append([*line, "" if share is None else f"{100 * share:.1f} %"])
    return cells


def change(saved: float) -> str:
    """By how much something grows of which a part is saved, such as `-45 %`."""
    percent = round(-100 * saved)
    return f"{percent:+d} %" if percent else "0 %"
