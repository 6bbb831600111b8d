"""`python benchmarks/paper.py N` measures the rows of a table of the paper, and prints them with its figures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from tqdm.auto import tqdm

from pumer_hf.bench.contenders import BenchOptions, Contender, contender, stock_contender
from pumer_hf.bench.cost import measure_sizes
from pumer_hf.bench.full_size import paper_model
from pumer_hf.bench.measure import measure
from pumer_hf.encoding import QUESTION_LENGTH
from pumer_hf.models.encoders.base import PuMerPreTrainedModel
from pumer_hf.results import REGIMES, Environment, Results, text_table

from .paper import TABLES, Row

BASELINE = "original"
Builder = Callable[..., PuMerPreTrainedModel]


@dataclass(frozen=True)
class MeasuredRow:
    """What was measured for a row of a table. A quantity that the table does not have is None or empty."""

    batch_size: int | None = None
    rounds: int | None = None
    throughput: float | None = None
    """The speed as a multiple of the original's."""
    throughput_over_stock: float | None = None
    gflops_ratio: float | None = None
    """The FLOPs of the original as a multiple of those of this model."""
    reduction_share: float | None = None
    """The part of the time that is spent on reducing tokens."""
    memory_saved: dict[str, float] = field(default_factory=dict)
    """The part of the original's peak memory that is saved, by regime."""
    gflops: dict[str, float] = field(default_factory=dict)
    """The GFLOPs of the original and of the reduced model, and the `ratio` of both."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "MeasuredRow":
        """Read a row from a file, which also has the paper's figures."""
        return cls(**{name: value for name, value in values.items() if name != "paper"})

    def to_dict(self) -> dict[str, Any]:
        """Return what was measured, as a file holds it."""
        return {name: value for name, value in asdict(self).items() if value not in (None, {})}


@dataclass(frozen=True)
class PaperReport(Results):
    """The measured rows of a table of PuMer."""

    table: int
    """The number of the table."""
    text_length: int
    rows: dict[str, MeasuredRow]
    """The rows by label."""
    environment: Environment

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "PaperReport":
        rows = {label: MeasuredRow.from_dict(row) for label, row in values["rows"].items()}
        return cls(values["table"], values["text_length"], rows, Environment.from_dict(values))

    def to_dict(self) -> dict[str, Any]:
        of_paper = {row.label: paper_figures(row) for row in TABLES[self.table]}
        rows = {label: {**row.to_dict(), "paper": of_paper[label]} for label, row in self.rows.items()}
        return {"table": self.table, "text_length": self.text_length, "rows": rows, **self.environment.to_dict()}


def run_table(number: int, options: BenchOptions, build: Builder = paper_model) -> tuple[list[str], PaperReport]:
    """Measure the rows of a table of PuMer with full-size models of random weights.

    This measures what the models cost, not how good they are.

    Args:
        number: 1 (backbone x task), 2 (METER at other resolutions), 4 (design choices), 7 (FLOPs).
        options: how to measure. The latency is not measured.
        build: a function that makes a model from backbone, task, reduction and image size.

    Returns:
        Lines to print, and the results.

    Raises:
        ValueError: there is no such table.
    """
    if number not in TABLES:
        raise ValueError(f"table {number}: choose one of {', '.join(map(str, TABLES))}")
    options, rows = replace(options, latency=False), TABLES[number]
    alone = number in (1, 7)  # each row has its own original
    groups: Sequence[Sequence[Row]] = [[row] for row in rows] if alone else [rows]
    measured: dict[str, MeasuredRow] = {}
    for group in tqdm(groups, desc=f"Table {number}", unit="run"):
        measured |= count_group(group, build) if number == 7 else measure_group(group, options, build)
    lines = [text_table(table_cells(rows, measured)), f"Full-size models with random weights; {options.dtype}."]
    if number != 7:
        lines.append("x: throughput of the original in the same run. Memory: peak of the activations that is saved.")
        lines.append(
            "The paper's figures are of other GPUs. Its memory is shown with that of a training step, because the code"
        )
        lines.append("released with it measures memory with gradients on.")
    return lines, PaperReport(number, QUESTION_LENGTH, measured, Environment.current())


def build_group(group: Sequence[Row], build: Builder) -> dict[str, PuMerPreTrainedModel]:
    """Return the original and the models of some rows, by label."""
    first = group[0]
    models = {BASELINE: build(first.backbone, first.task, None)}
    return models | {row.label: build(row.backbone, row.task, row.reduction, row.image_size) for row in group}


def count_group(group: Sequence[Row], build: Builder) -> dict[str, MeasuredRow]:
    """Count the FLOPs of some rows."""
    options = BenchOptions()
    contenders = {
        name: contender(model, QUESTION_LENGTH, options) for name, model in build_group(group, build).items()
    }
    models = {name: one.eager for name, one in contenders.items()}
    gflops = measure_sizes(models, {name: one.inputs(1) for name, one in contenders.items()}).gflops
    original = gflops[BASELINE]
    return {
        row.label: MeasuredRow(
            gflops={BASELINE: original, "reduced": gflops[row.label], "ratio": original / gflops[row.label]}
        )
        for row in group
    }


def measure_group(group: Sequence[Row], options: BenchOptions, build: Builder) -> dict[str, MeasuredRow]:
    """Measure some rows and their original in one interleaved run. With a single row, stock transformers runs too."""
    models = build_group(group, build)
    contenders: dict[str, Contender] = {}
    for name, model in models.items():
        contenders[name] = contender(model, QUESTION_LENGTH, options)
        stock = stock_contender(model, QUESTION_LENGTH, options) if name == BASELINE and len(group) == 1 else None
        if stock is not None:
            contenders["stock"] = stock
    cost = measure(contenders, options)
    assert cost.throughput is not None, "`measure` always gives it"
    speeds, memory = cost.throughput.speeds, cost.memory
    return {
        row.label: MeasuredRow(
            batch_size=cost.throughput.batch_size,
            rounds=cost.throughput.rounds,
            throughput=speeds[row.label].ratio,
            throughput_over_stock=speeds[row.label].ratio / speeds["stock"].ratio if "stock" in speeds else None,
            gflops_ratio=cost.gflops[BASELINE] / cost.gflops[row.label],
            reduction_share=cost.reduction_share.get(row.label),
            memory_saved={} if memory is None else {name: 1 - memory.share(name, row.label) for name in REGIMES},
        )
        for row in group
    }


def paper_figures(row: Row) -> dict[str, Any]:
    """Return what the paper reports for a row."""
    gflops = None if row.gflops is None else list(row.gflops)
    figures = {"throughput": row.throughput, "memory_saved": row.memory_saved, "gflops": gflops}
    return {name: value for name, value in figures.items() if value is not None}


def table_cells(rows: Sequence[Row], measured: Mapping[str, MeasuredRow]) -> list[list[str]]:
    """Return the cells of the table with the header first. The paper's figures are in brackets."""
    if measured[rows[0].label].gflops:
        cells = [["GFLOPs per example (paper)", BASELINE, "PuMer", "times fewer"]]
        for row in rows:
            gflops, (original, pumer) = measured[row.label].gflops, row.gflops or (0, 0)
            counts = [f"{gflops[BASELINE]:.1f} ({original:g})", f"{gflops['reduced']:.1f} ({pumer:g})"]
            cells.append([row.label, *counts, f"{gflops['ratio']:.2f}x ({original / pumer:.2f}x)"])
        return cells
    header = ["(paper)", "throughput", "GFLOPs", "over stock", *(f"memory, {regime}" for regime in REGIMES)]
    return [[*header, "reduction's time"], *([row.label, *speed_cells(row, measured[row.label])] for row in rows)]


def speed_cells(row: Row, measured: MeasuredRow) -> list[str]:
    """Return the cells of a row about speed and memory, without its label."""
    line = [f"{measured.throughput:.2f}x ({row.throughput:.2f}x)", f"{measured.gflops_ratio:.2f}x"]
    line.append("" if measured.throughput_over_stock is None else f"{measured.throughput_over_stock:.2f}x")
    for regime in REGIMES:
        of_paper = f" ({memory_change(row.memory_saved)})" if regime == "training" and row.memory_saved else ""
        line.append(f"{memory_change(measured.memory_saved[regime])}{of_paper}" if measured.memory_saved else "")
    return [*line, "" if measured.reduction_share is None else f"{100 * measured.reduction_share:.1f} %"]


def memory_change(saved: float) -> str:
    """Return the change of the memory, such as `-45 %`, from the part that is saved."""
    percent = round(-100 * saved)
    return f"{percent:+d} %" if percent else "0 %"
