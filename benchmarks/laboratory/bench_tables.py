"""Makes Markdown tables from the results of `pumer-hf bench`, `export` and `measure`, and of `benchmarks/paper.py`."""

from collections.abc import Mapping
from itertools import groupby
from pathlib import Path

from pumer_hf.bench.decoder_report import MEASURED, REDUCED, UNREDUCED, DecoderReport
from pumer_hf.bench.report import BenchReport
from pumer_hf.export.report import LABELS, ExportReport
from pumer_hf.measures.report import ExplanationReport
from pumer_hf.reducers import ReductionConfig, parse_reduction
from pumer_hf.results import REGIMES, markdown_table

from .paper import TABLES
from .paper_tables import PaperReport, table_cells


def report_name(report: BenchReport) -> str:
    """Return the setting or the checkpoint of a report, with what is reduced at other sites than `"layers"`."""
    schedule = parse_reduction(report.reduction)
    others = [part for part in (schedule.parts if schedule else ()) if part.site != "layers"]
    return " with ".join([report.name, *(f"{part_text(part)} at site `{part.site}`" for part in others)])


def part_text(part: ReductionConfig) -> str:
    """Return one part of a schedule in short: its method and its ratios above 0."""
    ratios = (getattr(part, name) for name in part.given_ratios)
    return " ".join([f"`{part.method}`", *(str(ratio) for ratio in ratios if ratio != 0)])


def conditions_text(report: BenchReport) -> str:
    """Return in words how the reduced model ran."""
    name, conditions = report.reduced, report.conditions
    how = [conditions.dtype[name], *(["compiled"] if name in conditions.compiled else [])]
    if conditions.matmul_precision != "highest":
        how.append(f"`--matmul-precision {conditions.matmul_precision}`")
    return ", ".join([*how, *(["`pooled_only`"] if name in conditions.pooled_only else [])])


def bench_table(reports: Mapping[str, BenchReport]) -> str:
    """Return a table with a row per report of `pumer-hf bench`: the reduced model relative to the unreduced one."""
    cells = [["", "batch", "throughput", "GFLOPs", "over stock", "latency at batch 1"]]
    cells[0] += [*(f"memory, {regime}" for regime in REGIMES), "reduction's time", "machine"]
    for report in reports.values():
        cost, name, stock = report.cost, report.reduced, report.gain_over_stock
        row = [f"{report_name(report)}, {conditions_text(report)}", str(report.throughput.batch_size)]
        row += [f"{report.throughput.gain:.2f}x", f"{cost.gflops_gain:.2f}x fewer"]
        row.append("" if stock is None else f"{stock:.2f}x")
        row.append("" if cost.latency is None else f"{cost.latency.models[name].ratio:.2f}x")
        memory = cost.memory
        row += ["" if memory is None else f"{100 * memory.share(regime, name):.0f} %" for regime in REGIMES]
        cells.append([*row, f"{100 * cost.reduction_share[name]:.1f} %", report.environment.machine_name])
    return markdown_table(cells) + "\n"


def prefill_table(reports: Mapping[str, DecoderReport]) -> str:
    """Return a table with a row per report of `pumer-hf bench` on a decoder: the reduced model over the unreduced one.

    The image tokens are those that the layers read, from the first to the last layer. The first two columns of ratios
    are the work and its limit; then come the speed of the prefill, and the part of the saved work that became speed.
    """
    cells = [["", "image tokens", "multiply-adds", "limit", "prefill", "of the promise", "reduction's time"]]
    cells[0] += ["cache", "peak memory", "machine"]
    for report in reports.values():
        work, speed = report.work, report.speed
        row = [decoder_name(report), tokens_text(report), f"{work.ratio:.2f}x fewer", f"{work.limit:.2f}x"]
        row += [f"{speed.prefill.ratio:.2f}x", f"{report.efficiency:.2f}", f"{100 * speed.reducer_share:.1f} %"]
        row += [share_text(report.cache_bytes), share_text(report.memory), report.environment.machine_name]
        cells.append(row)
    return markdown_table(cells) + "\n"


def decoder_name(report: DecoderReport) -> str:
    """Return the setting or the checkpoint of a decoder, its schedule in short, and its batch if that is not 1."""
    schedule = parse_reduction(report.reduction)
    assert schedule is not None, "it was measured with one"
    places = [
        f"{part_text(part)} {'before the decoder' if part.site == 'inputs' else f'after layers {list(part.layers)}'}"
        for part in schedule.parts
    ]
    batch = report.conditions.batch_size
    return ", ".join([report.name, *places, *([f"batch {batch}"] if batch > 1 else []), report.conditions.dtype])


def tokens_text(report: DecoderReport) -> str:
    """Return the image tokens of the unreduced prompt, and those that the layers of the reduced decoder read."""
    read = [tokens for tokens, _ in groupby(report.layer_tokens.get(MEASURED, [report.image_tokens[REDUCED]]))]
    return " → ".join(map(str, dict.fromkeys([report.image_tokens[UNREDUCED], *read])))


def share_text(counts: Mapping[str, int]) -> str:
    """Return the bytes of the reduced model as a part of those of the unreduced one; empty if nothing was measured."""
    return f"{100 * counts[REDUCED] / counts[UNREDUCED]:.0f} %" if counts else ""


def paper_table(report: PaperReport) -> str:
    """Return a table of PuMer's paper as `benchmarks/paper.py` measured it. The paper's figures are in brackets."""
    batches = [row.batch_size for row in report.rows.values() if row.batch_size is not None]
    ends = dict.fromkeys([min(batches), max(batches)]) if batches else {}
    batch = f", batch {' to '.join(map(str, ends))}" if ends else ""
    title = f"PuMer, Table {report.table}, on {report.environment.machine_name}{batch}:\n\n"
    return title + markdown_table(table_cells(TABLES[report.table], report.rows)) + "\n"


ONNX_COLUMNS = ("stock", "pytorch", "onnxruntime_unreduced", "onnxruntime", "int8")
"""The models of `pumer-hf export` that have a column. The baseline, the unreduced model in PyTorch, has none."""


def onnx_table(reports: Mapping[str, ExportReport]) -> str:
    """Return a table with a row per report of `pumer-hf export` on a model that reduces.

    The speeds are multiples of the speed of the unreduced model in PyTorch.
    """
    labels = [*(LABELS[name] for name in ONNX_COLUMNS[:-1]), "int8"]
    cells = [["over PyTorch, unreduced", "batch", *labels, "machine"]]
    for report in reports.values():
        speeds = report.throughput.speeds
        ratios = [f"{speeds[name].ratio:.2f}x" if name in speeds else "" for name in ONNX_COLUMNS]
        name = Path(report.checkpoint).name
        cells.append([name, str(report.throughput.batch_size), *ratios, report.environment.machine_name])
    return markdown_table(cells) + "\n"


def measures_table(reports: Mapping[str, ExplanationReport]) -> str:
    """Return a table with a row per report of `pumer-hf measure`, by name of the report.

    A row says what the last layer keeps, and how faithful the answers are. After each figure stands that of random
    choices.
    """
    cells = [["", "accuracy", "recall", "precision", "sufficiency", "comprehensiveness"]]
    for name, report in reports.items():
        found = report.explanations
        last, faithfulness = found.layers[-1], found.faithfulness
        row = [name, str(found.accuracy["reduced"]) if found.accuracy else ""]
        for value, drawn in ((last.recall, last.random_recall), (last.precision, last.random_precision)):
            row.append(f"{value:.1f} % (random {drawn:.1f} %)")
        for measure in ("sufficiency", "comprehensiveness"):
            drawn_name = f"random_{measure}"
            known = measure in faithfulness
            row.append(f"{faithfulness[measure].number} (random {faithfulness[drawn_name].number})" if known else "")
        cells.append(row)
    return markdown_table(cells) + "\n"
